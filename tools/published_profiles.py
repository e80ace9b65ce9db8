"""A section of docs/published.md for each profile: the published report beside ours, and the four charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from published_model import Published, published, reference

from raybench.analysis.figures import OhaFigures, Summary
from raybench.analysis.oha import Durations
from raybench.analysis.oha import figures as oha_figures
from raybench.report import oha as oha_text
from raybench.report.charts import Chart

COLUMN = 46
"""Characters of the published column where two reports stand side by side."""


@dataclass(frozen=True)
class Shown:
    """The repeat that stands for all of a profile's: the one nearest to their medians."""

    repeat: int
    summary: Summary
    charts: list[Chart]


TOLD = {
    "every-15s": """
The refusals explain more than the quick answers. While nothing was up, 37 or so requests were refused, one
each 15 s, and cost the client no place; when the first replica came, the queue grew behind it, and the second
one took as long to come. That is where the answers cut at 300 s come from: two replicas from the start would
about have kept up with one request each 15 s. p25 falls at the edge between refusals and answers, which is
why its band is wide. The simulation cuts fewer requests than were cut: the lower bound of the published share
is inside the band, but above the median. The one transport error of 149 requests is not modelled.""",
    "every-6s": """
The client was at its limit throughout: its places, not the schedule, set the load. Latency is then places
over throughput whatever else happens, and the fit is good for that reason.""",
    "every-30s": """
A single replica nearly keeps up, so the outcome hangs on the lengths of a few early answers, and on whether
and when the second replica comes: hence the width of the band. This profile alone would rather have a cold
start of a minute.""",
}


def profile_section(profile: str, kept: Mapping[str, Any], shown: Shown) -> str:
    of = published(profile)
    ours = shown.summary.oha[0]
    quick = sorted(kept["profiles"][profile]["quick"])
    low, high = quick[int(0.05 * len(quick))], quick[int(0.95 * len(quick)) - 1]
    refusals = ""
    if of.raw["derived"].get("under_0_372_s_at_least"):
        refusals = (
            f" Answers within 0.372 s: {low} to {high} in 90% of the repeats; published are at least "
            f"{of.raw['derived']['under_0_372_s_at_least']}, and "
            f"{of.raw['derived']['under_30_4_s']} within 30.4 s."
        )
    return f"""
## {profile}

{TOLD[profile].strip()}{refusals}

The published report beside that of repeat {shown.repeat}, whose figures are the nearest to the medians of all
repeats, in oha's form:

```text
{_side_by_side(_published_block(of), _our_block(ours))}
```

![Queue depth, average queue depth, QPS and replicas of the simulated {profile}](published-{profile}.svg)

The published page shows the same four charts as pictures without figures, so there is nothing to hold these
against."""


def _published_block(of: Published) -> str:
    stated = of.raw["published"]
    errors = {"transport error": of.raw["derived"]["errors"]} if of.raw["derived"]["errors"] else {}
    n = of.raw["derived"]["answered"]
    total_bytes = round(float(stated["total_data"].split()[0]) * 1024)
    durations = Durations(
        n=n,
        slowest_s=stated["slowest_s"],
        fastest_s=stated["fastest_s"],
        average_s=stated["average_s"],
        histogram=tuple(stated["histogram"].items()),
        percentiles=tuple(stated["percentiles"].items()),
    )
    slowest, fastest = reference()["throughput_tokens_per_s"]
    found = oha_figures(
        durations,
        errors=errors,
        total_s=stated["total_s"],
        total_bytes=total_bytes,
        toks_per_s=(float(slowest), float(fastest)),
    )
    return _until_details(oha_text.render(found))


def _our_block(found: OhaFigures) -> str:
    parts = _until_details(oha_text.render(found)).split("\n\n")
    return "\n\n".join("  (sizes are not modelled)" if p.startswith("  Total data") else p for p in parts)


def _until_details(text: str) -> str:
    """Up to the percentiles: of what comes below nothing was published."""
    return text.split("\n\n\nDetails")[0].replace("\t", " ")


def _side_by_side(left: str, right: str) -> str:
    a, b = left.split("\n"), right.split("\n")
    rows = [("published", "simulated"), ("", ""), *_aligned(a, b)]
    return "\n".join(f"{x:<{COLUMN}}{y}".rstrip() for x, y in rows)


def _aligned(a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Block by block, so that a line that one side lacks shifts nothing."""
    made: list[tuple[str, str]] = []
    for x, y in zip_longest("\n".join(a).split("\n\n"), "\n".join(b).split("\n\n"), fillvalue=""):
        made += zip_longest(x.split("\n"), y.split("\n"), fillvalue="")
        made.append(("", ""))
    return made[:-1]
