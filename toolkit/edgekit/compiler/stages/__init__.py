"""The cached stages of a compile, in the order they run: load, frames, baseline, explain, quantize, measure."""
