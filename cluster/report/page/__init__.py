"""The page of a report: one HTML file with its own style and charts. It has no script and loads nothing.

``content`` holds what the page shows. ``overview``, ``answers``, ``rows``, ``timeline`` and ``plan`` prepare its
sections for the template. ``formats`` writes numbers and texts, ``charts`` draws, and ``render`` puts the page
together.
"""
