"""What a run writes: plans, chunks, parts, dead letters."""
