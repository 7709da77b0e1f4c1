"""The device bundle: a canonical ZIP of a manifest, the engine's model, golden frames and an aggregate report."""
