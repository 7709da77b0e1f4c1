"""The command line: one module a command; `main` is the one place that catches errors and sets exit codes."""
