"""Runs as jobs on a Ray cluster."""
