"""What a run will cost, from a survey of its input."""
