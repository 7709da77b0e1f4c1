"""Training of a student on the answers, maps and features of its teachers."""
