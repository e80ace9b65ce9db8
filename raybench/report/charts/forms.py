"""One Vega-Lite specification, three forms: live in the page, SVG and PNG for files.

vl-convert brings the renderer; it is imported when the first form is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from raybench.report.charts.style import HOVER, Chart

WIDTH = 760
"""Of PNG and SVG; on the page a chart is as wide as the page."""
SCALE = 2.0

_HOST = re.compile(r"https://[\w.-]+")

_INK = {"labelColor": "#333333", "titleColor": "#333333", "titleFontWeight": "normal"}
_CONFIG: dict[str, Any] = {
    "aria": False,  # the page describes each chart in words; a thousand labelled marks would drown that
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {**_INK, "gridColor": "#dddddd", "tickColor": "#999999", "domainColor": "#999999"},
    "text": {"color": "#333333"},
    "title": {"anchor": "start", "fontSize": 14, "offset": 10},
    "legend": {"labelColor": "#333333"},
}


def specification(chart: Chart) -> dict[str, Any]:
    """The chart as Vega-Lite, but for its width. Rows that layers share are there once."""
    datasets: dict[str, Any] = {}
    names: dict[int, str] = {}
    layers = []
    for layer in chart.layers:
        rows = layer["data"]["values"]
        if id(rows) not in names:
            names[id(rows)] = f"rows{len(names)}"
            datasets[names[id(rows)]] = rows
        layers.append({**layer, "data": {"name": names[id(rows)]}})
    return {
        "config": _CONFIG,
        "background": "transparent",
        "height": chart.height,
        "datasets": datasets,
        "layer": layers,
    }


def fitted(chart: Chart) -> dict[str, Any]:
    """For the page: as wide as its container."""
    fit = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**specification(chart), **fit}


def _still(chart: Chart, *, titled: bool) -> dict[str, Any]:
    made = {**specification(chart), "width": WIDTH}
    made["layer"] = [layer for layer in made["layer"] if layer.get("name") != HOVER]
    return made | ({"title": chart.title, "background": "white"} if titled else {})


def svg(chart: Chart, *, titled: bool = True) -> str:
    """`titled`: with its title, on white; else bare, for a page that has both."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(_still(chart, titled=titled)))


def png(chart: Chart, *, scale: float = SCALE) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(_still(chart, titled=True), scale=scale))


def write(charts: Sequence[Chart], directory: Path) -> list[Path]:
    """NAME.png and NAME.svg of each chart that is drawn, into a directory that is made where missing.
    Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        if not chart.drawn:
            continue
        for suffix, content in ((".png", png(chart)), (".svg", svg(chart).encode())):
            path = directory / f"{chart.name}{suffix}"
            path.write_bytes(content)
            written.append(path)
    return written


@cache
def javascript() -> str:
    """`vegaEmbed`, with all of Vega, to stand in a page: it loads nothing. The hosts named in it (of its
    language's name and of links that the page never shows) are taken out, so that a search finds none.
    """
    import vl_convert

    library = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return _HOST.sub("about:", library).replace("</script", "<\\/script")


def as_json(specification: dict[str, Any]) -> str:
    """For a script element: no `<` can end it."""
    return json.dumps(specification, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
