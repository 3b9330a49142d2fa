"""The state of a run as values: what was checked, what is left, its progress, its result."""
