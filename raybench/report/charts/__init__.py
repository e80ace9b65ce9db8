"""Charts of a run: one specification each, for the page, PNG and SVG. Needs no browser and no network.

made = charts(summary, series)
write(made, Path("charts"))
"""

from __future__ import annotations

from raybench.analysis.figures import Summary
from raybench.analysis.series import Series
from raybench.report.charts import deployment, latency, load
from raybench.report.charts.forms import fitted, png, specification, svg, write
from raybench.report.charts.style import Chart, Frame

__all__ = ["Chart", "charts", "fitted", "png", "specification", "svg", "write"]


def charts(summary: Summary, series: Series) -> list[Chart]:
    """Every chart of a run, in the order of the page; those that have no data say why."""
    frame = Frame(series, summary)
    return [
        *deployment.charts(frame),
        *load.waterfalls(frame),
        *latency.charts(frame),
        *load.charts(frame),
    ]
