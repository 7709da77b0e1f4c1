"""Labelled frames and statistics: data manifests, metrics with intervals, paired tests and the acceptance gate."""
