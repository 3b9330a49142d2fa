"""A run from the driver's side."""
