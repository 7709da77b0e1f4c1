"""The device side: open a bundle, predict, explain. Never imports torch."""
