"""The process that hosts an engine and commits chunks."""
