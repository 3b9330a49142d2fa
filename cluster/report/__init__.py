"""Reports: a page and figures for an output, what moved since an earlier output, and the cost of a run."""
