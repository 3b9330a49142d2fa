"""What is sent to an engine, and how its answers are read."""
