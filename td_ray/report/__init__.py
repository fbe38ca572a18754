"""One self-contained HTML page of a run: what differs, by how much, and how much of it is noise.

``comparisons`` reads the tables, ``figures`` packs the numbers of the drawings, ``sections`` and
``page`` turn both into HTML. ``page.js`` draws with plotly.js, which is inlined; the page loads
nothing else.
"""

from td_ray.report.page import write_report

__all__ = ["write_report"]
