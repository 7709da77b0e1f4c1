"""One file an inference engine, behind one contract."""
