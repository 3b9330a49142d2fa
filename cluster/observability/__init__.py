"""Metrics, traces, lineage, logs and progress."""
