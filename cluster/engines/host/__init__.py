"""Engines in a process of their own, which can start before their worker does."""
