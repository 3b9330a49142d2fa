"""The pipeline as data: reading it, checking it, and which steps wait for which."""
