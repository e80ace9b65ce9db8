"""Writes docs/published.md and its pictures: the published experiments beside their simulations.

    python tools/published.py            simulates everything again and writes page, data and pictures
    python tools/published.py --page     only the page and the pictures, from the kept data
    python tools/published.py --check    fails where the page differs from what the kept data make of it

Kept are docs/published-data.json (every repeat's figures, and the alternatives) and docs/published-fit.json,
which benchmarks/published_fit.py writes. A test draws some of the repeats again, so neither can go stale.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import published_alternatives as alternatives
import published_charts as pictures
import published_page as page
from published_model import (
    BAND,
    PROFILES,
    REPEATS,
    ROOT,
    Parameters,
    as_json,
    as_row,
    published,
    runs,
    scenario,
)
from published_profiles import Shown

from raybench.analysis import Question, summarise
from raybench.analysis.series import series
from raybench.report import charts
from raybench.report.charts import Chart
from raybench.simulator import simulate

DOCS = ROOT / "docs"
DATA, FIT, PAGE = DOCS / "published-data.json", DOCS / "published-fit.json", DOCS / "published.md"
MADE_OF = "<!-- made of "
PERCENTS = (1, *range(5, 100, 5), 99)


def simulated_profile(profile: str, repeats: int) -> dict[str, Any]:
    """What the page needs of the repeats of one profile."""
    found = runs(scenario(profile), repeats)
    at = np.array(
        [r.latencies_s[np.floor(np.array(PERCENTS) / 100 * len(r.latencies_s)).astype(int)] for r in found]
    )
    low, high = (np.sort(at, axis=0)[max(0, math.ceil(share * repeats) - 1)] for share in BAND)
    edges = np.array(list(published(profile).raw["published"]["histogram"]))
    # A published bin holds its upper edge; ours beyond the last one, by milliseconds, belong to the last bin.
    last = len(edges) - 1
    bins = np.array(
        [
            np.bincount(np.minimum(np.searchsorted(edges, r.latencies_s), last), minlength=last + 1)
            for r in found
        ]
    )
    return {
        "figures": [as_row(r.figures) for r in found],
        "quick": [r.quick for r in found],
        "total_s": [round(r.total_s, 3) for r in found],
        "percentiles": [
            [round(float(v), 3) for v in row] for row in zip(low, np.median(at, axis=0), high, strict=True)
        ],
        "bins": [round(float(v), 2) for v in bins.mean(axis=0)],
    }


def simulated_alternatives(profile: str, fitted: Parameters) -> dict[str, Any]:
    made = {}
    for setting in alternatives.SETTINGS:
        made[setting.name] = rounded(alternatives.simulated(profile, setting, fitted))
    return made


def rounded(outcome: alternatives.Outcome) -> dict[str, float | None]:
    """For JSON, which has no infinity: null is a percentile among requests that never got that far."""
    return {k: round(v, 4) if math.isfinite(v) else None for k, v in asdict(outcome).items()}


def data(repeats: int = REPEATS) -> dict[str, Any]:
    fitted = Parameters.of(scenario("every-15s"))
    return {
        "repeats": repeats,
        "percents": list(PERCENTS),
        "profiles": {p: simulated_profile(p, repeats) for p in PROFILES},
        "alternatives": {p: simulated_alternatives(p, fitted) for p in PROFILES},
    }


def typical(figures: list[list[float]]) -> int:
    """The repeat (from 1) whose figures are nearest to the medians of all, in units of their spread."""
    of = np.array(figures)
    spread = of.std(axis=0)
    away = (of - np.median(of, axis=0)) / np.where(spread > 0, spread, 1.0)
    return int((away**2).sum(axis=1).argmin()) + 1


def shown_runs(kept: dict[str, Any]) -> dict[str, Shown]:
    """The typical repeat of each profile: its summary and its charts."""
    made = {}
    for profile in PROFILES:
        repeat = typical(kept["profiles"][profile]["figures"])
        source = simulate(scenario(profile), repeat=repeat)
        summary = summarise(source)
        drawn = {c.name: c for c in charts.charts(summary, series(source, Question(), summary))}
        made[profile] = Shown(repeat, summary, [drawn[name] for name in pictures.THE_FOUR])
    return made


def boards(kept: dict[str, Any], shown: dict[str, Shown]) -> dict[str, dict[str, Any]]:
    """Every picture's specification by the name of its file."""
    made = {f"published-{p}.svg": pictures.board(shown[p].charts, 2) for p in PROFILES}
    shapes: list[Chart] = []
    for p in PROFILES:
        stated = published(p).raw["published"]
        shapes.append(
            pictures.percentiles(
                p, kept["percents"], kept["profiles"][p]["percentiles"], stated["percentiles"]
            )
        )
    for p in PROFILES:
        bars, ours = published(p).raw["published"]["histogram"], kept["profiles"][p]["bins"]
        shapes.append(pictures.histogram(p, list(bars), list(bars.values()), ours))
    made["published-latency.svg"] = pictures.board(shapes, 3, 290)
    spans = []
    for p in PROFILES:
        for metric, name in (("ttft", "TTFT"), ("e2e", "E2E")):
            rows = page.drawn_alternatives(kept["alternatives"][p], metric, pictures.NEVER_S)
            spans.append(pictures.alternatives(f"{p}, {name}", rows, labelled=metric == "ttft"))
    made["published-alternatives.svg"] = pictures.board(spans, 2, 330)
    return made


def digest(specification: dict[str, Any]) -> str:
    """Of what is drawn, whatever the version of the renderer."""
    return hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()


def kept_digest(name: str) -> str:
    """What a picture says that it was made of."""
    first = (DOCS / name).read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix(MADE_OF).removesuffix(" -->")


def main() -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    asked.add_argument("--page", action="store_true")
    asked.add_argument("--check", action="store_true")
    options = asked.parse_args()
    if not (options.page or options.check):
        DATA.write_text(as_json(data()), encoding="utf-8")
    kept = json.loads(DATA.read_text(encoding="utf-8"))
    fits = json.loads(FIT.read_text(encoding="utf-8"))
    shown = shown_runs(kept)
    text = page.render(kept, fits, shown)
    if options.check:
        if PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE}: differs from the kept data; run python tools/published.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    for name, specification in boards(kept, shown).items():
        drawn = f"{MADE_OF}{digest(specification)} -->\n{pictures.svg(specification)}\n"
        (DOCS / name).write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
