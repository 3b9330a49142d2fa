"""The report of a run, as a page and on the terminal."""
