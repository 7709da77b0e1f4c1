"""What is known about targets, models and calibration: TOML files decoded into dataclasses of the same names."""
