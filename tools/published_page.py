"""The words of docs/published.md. Every figure in them comes from the kept data, the fits, the scenarios or
the published reference; none is typed in.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from published_arithmetic import section as arithmetic
from published_arithmetic import size
from published_model import (
    FIGURES,
    PROFILES,
    Figures,
    Judged,
    Parameters,
    Story,
    judge,
    published,
    scenario,
)
from published_profiles import Shown, profile_section

from raybench.report.units import duration

WORDS = {
    "sent": "requests sent",
    "p25_s": "p25",
    "p50_s": "p50",
    "mean_s": "mean",
    "cut": "cut at 300 s",
}


def render(kept: Mapping[str, Any], fits: Sequence[Mapping[str, Any]], shown: Mapping[str, Shown]) -> str:
    fitted = Parameters.of(scenario(PROFILES[0]))
    judged = {p: judge(published(p), figures_of(kept, p)) for p in PROFILES}
    parts = [
        "# The published experiments, simulated",
        "<!-- written by tools/published.py; change it there -->",
        opening(judged, kept),
        arithmetic(),
        model(fitted),
        fit_section(fits),
        criterion(judged, kept),
        *(profile_section(p, kept, shown[p]) for p in PROFILES),
        doubts(kept, fits),
        alternatives(kept),
        AGAIN,
    ]
    return wrapped("\n\n".join(part.strip() for part in parts)) + "\n"


def wrapped(text: str) -> str:
    """Paragraphs and list items as long as the page is wide; tables, code and headings as they are."""
    made, in_code = [], False
    for block in text.split("\n\n"):
        is_prose = not in_code and not block.startswith(("#", "|", "!", "```", "    ", "<"))
        in_code ^= block.count("```") % 2 == 1
        items = block.split("\n- ") if block.startswith("- ") else [block]
        if not is_prose:
            made.append(block)
        elif block.startswith("- "):
            made.append("\n".join(_filled(i.removeprefix("- "), "- ", "  ") for i in items))
        else:
            made.append(_filled(block, "", ""))
    return "\n\n".join(made)


def _filled(text: str, first: str, next_: str) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width=110,
        initial_indent=first,
        subsequent_indent=next_,
        break_long_words=False,
        break_on_hyphens=False,
    )


def figures_of(kept: Mapping[str, Any], profile: str) -> list[Figures]:
    return [Figures(*row) for row in kept["profiles"][profile]["figures"]]


# --- the top -----------------------------------------------------------------------------------------


def opening(judged: Mapping[str, Sequence[Judged]], kept: Mapping[str, Any]) -> str:
    counted = [j for of in judged.values() for j in of if j.counts]
    held = sum(j.holds for j in counted)
    near = sum(j.within for j in counted)
    return f"""
"LLM Inference Autoscaling Benchmarks" (Wallaroo documentation) reports three runs of oha against Llama 3 8B
on vLLM, autoscaled by queue depth between 0 and 2 replicas. This page simulates what was done, holds the
outcome against every published figure, and then shows what the same model and load could have given.

Of the {len(counted)} figures of the criterion (requests sent, p25, p50, mean and the share cut at 300 s, of
three profiles), the median of {kept["repeats"]} simulated repeats is within 20% of {near}, and
{held} of {len(counted)} lie within 20% or inside the 90% band of the repeats. Five parameters are fitted,
over all three profiles together."""


# --- the model ---------------------------------------------------------------------------------------


def model(fitted: Parameters) -> str:
    slot = "goes on" if fitted.cut_keeps_slot else "does not go on"
    tokens = _clipped(fitted.mean_output_tokens)
    full = published("every-30s").raw["published"]["size_per_request"]
    rows = [
        ["1", "cold start, from the decision to able to serve", f"{fitted.cold_start_s:g} s",
         "37 to 39 quick answers, one each 15 s"],
        ["2", "mean length of an answer, exponential, before `max_tokens` clips it",
         f"{fitted.mean_output_tokens:g} tokens", "the mean size, below"],
        ["3", "requests that the client keeps in flight at most", f"{fitted.max_in_flight}",
         "Little's law, above"],
        ["4", "whether the engine goes on with a request that was cut", slot, "the share cut, loosely"],
        ["5", "what was up when the load began", "nothing in every-15s, one replica in the other two",
         "the fastest answers, below"],
    ]  # fmt: skip
    return f"""
## What is simulated

The scenarios [`every-15s`](../scenarios/published/every-15s.yaml),
[`every-6s`](../scenarios/published/every-6s.yaml) and
[`every-30s`](../scenarios/published/every-30s.yaml) state every parameter and where it comes from. As
published: the policy and its thresholds, the window, the maximum of two replicas, the prompt, `max_tokens`,
the three loads, 65 tokens/s. By the arithmetic above: one request at a time in each replica, a client that
keeps no more than some number of requests in flight, a gateway that answers after 300.35 s in place of the
model and within 0.36 s while there is nothing to ask.

Five parameters are fitted; they are the same for the three profiles but for how a run began:

{_table(["", "parameter", "fitted", "checked by"], rows)}

Clipped at 4,096 tokens, answers of this distribution have {tokens:,.0f} tokens on average,
{tokens / 65:.1f} s at 65 tokens/s. In every-30s every answer was complete and had {full}:
{size(full) * 1024 / tokens:.1f} bytes a token, as English text has. The fifth parameter is hardly free: a
first answer after
{published("every-6s").raw["published"]["fastest_s"]:.1f} s (every-6s) or
{published("every-30s").raw["published"]["fastest_s"]:.1f} s (every-30s) cannot have waited for a cold start,
and in every-6s, whose queue never empties, no later one could have been as quick. In the simulation a run
that began with one replica has `min_replicas: 1`, which while requests come every few seconds does the same
as a minimum of 0."""


def _clipped(mean: float, most: int = 4096) -> float:
    """E[min(X, most)] of an exponential X: mean (1 - exp(-most / mean))."""
    return mean * (1 - math.exp(-most / mean))


# --- the fit -----------------------------------------------------------------------------------------


def fit_section(fits: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for fit in fits:
        if fit["story"] != Story.FITTED:
            continue
        scores = []
        for p in PROFILES:
            text = f"{fit['score'][p]:.1f}"
            scores.append(text if p in fit["on"] else f"**{text}**")
        on = "all three" if len(fit["on"]) == len(PROFILES) else " and ".join(fit["on"])
        slot = "yes" if fit["cut_keeps_slot"] else "no"
        rows.append(
            [
                on,
                f"{fit['cold_start_s']:g} s",
                f"{fit['mean_output_tokens']:g}",
                str(fit["max_in_flight"]),
                slot,
                *scores,
            ]
        )
    head = ["fitted on", "cold start", "tokens", "in flight", "cut keeps slot", *PROFILES]
    return f"""
## The fit: on two, to predict the third

`benchmarks/published_fit.py` searches a grid on common random numbers. What it makes small, over the profiles
that are fitted on, is first the number of figures that miss the criterion (below), then how surprising the
published figures are to the simulation (`published_model.score`, in the table). Smaller is better; a profile
that was predicted stands in bold, and a difference of 1 between two fits is within what the repeats leave
open.

{_table(head, rows)}

The predicted profiles, figure by figure (the median of the repeats, their 90% band, the published value; ✓
within 20%, ○ inside the band, ✗ neither):

{_predictions(fits)}"""


def _predictions(fits: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for fit in fits:
        if fit["story"] != Story.FITTED or len(fit["on"]) == len(PROFILES):
            continue
        (profile,) = set(PROFILES) - set(fit["on"])
        found = [Figures(*row) for row in fit["predicted"]]
        rows.append([profile, *(_cell(j) for j in judge(published(profile), found))])
    return _table(["predicted", *(WORDS[name] for name in FIGURES)], rows)


def _cell(j: Judged) -> str:
    low, high = (_value(j.name, v) for v in j.band)
    return f"{_value(j.name, j.median)} [{low}, {high}] for {_stated(j)} {_mark(j)}"


def _mark(j: Judged) -> str:
    if not j.counts:
        return "–"
    return "✓" if j.within else "○" if j.inside else "✗"


def _value(name: str, v: float) -> str:
    if name == "cut":
        return f"{v:.0%}"
    return f"{v:.0f}" if name == "sent" or v >= 100 else f"{v:.3g}"


def _stated(j: Judged) -> str:
    low, high = j.published
    return _value(j.name, low) if low == high else f"{_value(j.name, low)} to {_value(j.name, high)}"


# --- the criterion -----------------------------------------------------------------------------------


def criterion(judged: Mapping[str, Sequence[Judged]], kept: Mapping[str, Any]) -> str:
    rows = []
    for profile, of in judged.items():
        for j in of:
            low, high = (_value(j.name, v) for v in j.band)
            rows.append(
                [profile, WORDS[j.name], _stated(j), _value(j.name, j.median), f"{low} to {high}", _mark(j)]
            )
    return f"""
## The outcome

Latencies in seconds, from sent to done of everything that ended with an HTTP status, as oha counts. The share
cut is known within bounds only: at least the percentiles that equal 300 s, at most the last bar of the
histogram. ✓ median within 20%, ○ inside the band of {kept["repeats"]} repeats, ✗ neither.

{_table(["profile", "figure", "published", "simulated", "90% of the repeats", ""], rows)}

The bands are wide because the runs were short: {published("every-30s").raw["derived"]["answered"]} answers of
very different lengths in every-30s say little for or against any model. A narrower band would take more
requests.

![Latencies over percentiles and histograms, published and simulated](published-latency.svg)

In the histograms the repeats are counted in the published bins."""


# --- what remains open -------------------------------------------------------------------------------


def doubts(kept: Mapping[str, Any], fits: Sequence[Mapping[str, Any]]) -> str:
    plain = [f for f in fits if f["story"] == Story.PLAIN and len(f["on"]) == len(PROFILES)]
    own = [f for f in fits if f["story"] == Story.FITTED and len(f["on"]) == len(PROFILES)]
    (short,) = [f for f in fits if f["on"] == ["every-6s", "every-30s"]]
    rows = []
    for name, found in (
        ("one replica up, or refusals until one is", own),
        ("as published, from zero", plain),
    ):
        for fit in found:
            scores = [f"{fit['score'][p]:.1f}" for p in PROFILES]
            rows.append([name, f"{fit['cold_start_s']:g} s", *scores, f"{sum(fit['score'].values()):.1f}"])
    return f"""
## What it does not show

The published settings alone suggest another story: every profile begins with nothing, and requests wait for
the first replica. Fitted in the same way to all three profiles, with as many parameters:

{_table(["how the runs began", "cold start", *PROFILES, "sum"], rows)}

- From zero, every-30s is met better and every-15s not: no queue answers within 0.36 s, so p25 of
  {published("every-15s").figures.p25_s:.1f} s is out of reach.
- One cold start for all three is a simplification. every-15s asks for some nine minutes, by its quick answers
  and by those cut; fitted on every-6s and every-30s alone it comes out at {short["cold_start_s"]:g} s, and
  every-15s is not predicted. Images and weights that were on the nodes by the second and third run would do
  that; nothing published says so.
- That the cold start was that long is therefore read from one run, and that the other two began with a
  replica from their fastest answers.
- The shape of the lengths is assumed. Exponential answers suit the three histograms; others may.
- Sizes are not compared: the simulation makes no text."""


# --- what could have been ----------------------------------------------------------------------------


def drawn_alternatives(
    rows: Mapping[str, Mapping[str, Any]], metric: str, never_s: float
) -> list[dict[str, Any]]:
    """For the chart: p50 and p95 of a latency under each setting, in seconds; `never_s` for one without."""
    return [
        {
            "setting": name,
            "p50": row[f"{metric}_p50_s"] or never_s,
            "p95": row[f"{metric}_p95_s"] or never_s,
        }
        for name, row in rows.items()
    ]


def alternatives(kept: Mapping[str, Any]) -> str:
    rows = []
    for profile in PROFILES:
        for name, of in kept["alternatives"][profile].items():
            times = [
                "never" if of[k] is None else duration(of[k])
                for k in ("ttft_p50_s", "ttft_p95_s", "e2e_p50_s", "e2e_p95_s")
            ]
            row = [f"{of['success']:.0%}", f"{of['good']:.0%}", f"{of['replica_s']:,.0f}"]
            rows.append([profile, name, *times, *row])
    head = [
        "profile",
        "setting",
        "TTFT p50",
        "TTFT p95",
        "E2E p50",
        "E2E p95",
        "success",
        "good",
        "replica-s",
    ]
    return f"""
## What the publisher could have had

The same requests on the same model, with the fitted lengths of answers and cold start, from the scenarios
`llama3-8b-every-*`: an open loop that sends every planned request at its instant, with a client that gives up
after 300 s, and the engine model `llama3-8b-a100` with one request at a time or with continuous batching (256
slots). Medians of 21 repeats, from the planned instant, over all planned requests; a request that failed or
was never sent counts as longer than any, so `never` is a percentile among those. Good: answered with its
first token within 2 s and whole within 60 s.

{_table(head, rows)}

![TTFT and E2E from p50 to p95 under each setting](published-alternatives.svg)

{TOLD_ALTERNATIVES.strip()}"""


TOLD_ALTERNATIVES = """
- With continuous batching one replica serves each of the three loads, and all that remains of the waiting is
  the cold start. Nine minutes of that are longer than any client waits; one minute costs the first requests
  only; a replica that stays up costs nobody anything but its price.
- Beside that, windows and depths matter little here. Thresholds that count requests being served do not suit
  a replica that batches: at a depth of 5 it is nearly idle, and in every-6s the policy adds a replica that
  nobody needs. Depths of 64 and 16 do with one.
- One at a time, more eager thresholds help as far as two replicas reach: every-30s. In an open loop every-6s
  asks for nearly six such replicas, and no threshold helps.
- About a fifth of the answers are longer than the 60 s that count as good, at any speed of a single stream.

Replica-seconds count from the request for a replica to its end, so they include the cold starts, also that of
a replica that is up when the load begins.
"""

AGAIN = """
## Made again

    python benchmarks/published_fit.py --write    # the fits: docs/published-fit.json
    python tools/published.py                     # every repeat, this page and its pictures
    raybench simulate scenarios/published/every-15s.yaml --repeats 200

The page and its data are checked by the tests: some of the repeats are drawn again and the page is made again
from the data.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
