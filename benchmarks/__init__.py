"""The benchmark: headrace beside what people use today, on this machine, with the same model and documents.

``python -m benchmarks --help``; or ``make bench``.
"""
