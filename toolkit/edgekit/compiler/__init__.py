"""The compile side: load, baseline, explain, quantize, prove, pack. The only package that imports torch."""
