"""The state of a run as values: what was checked, what there is to do, how far it is, what came of it."""
