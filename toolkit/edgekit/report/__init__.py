"""JSON and self-contained HTML, shared by compile and profile."""
