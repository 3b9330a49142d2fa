"""The pipeline as data: reading it, checking it, and what its steps wait for."""
