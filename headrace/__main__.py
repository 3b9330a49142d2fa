"""``python -m headrace``: the same as the command ``headrace``."""

from headrace.cluster.cli.main import main

main()
