"""Frames: reading, preprocessing, overlays and a synthetic phantom, with numpy and Pillow only."""
