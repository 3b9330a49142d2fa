"""The state of a run as values: what was checked, what is to do, its progress, its result."""
