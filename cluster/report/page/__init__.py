"""The page of a report: one HTML file with its style and its charts, no script, nothing loaded.

``content`` is what the page shows. ``overview``, ``answers``, ``rows``, ``timeline`` and ``plan`` prepare its sections
for the template. ``formats`` writes numbers and texts, ``charts`` draws, and ``render`` puts the page together.
"""
