"""Reports: a page and figures for each output, what has shifted since an earlier one, and what a run cost."""
