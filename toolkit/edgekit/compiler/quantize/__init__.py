"""Quantization: the rungs of the ladder, and the writer of each engine's dialect."""
