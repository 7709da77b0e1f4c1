"""Latency, memory and cold start of a bundle on the machine in the hand."""
