"""Fits the simulator to the published experiments: on each two profiles, to predict the third, and on all.

    python benchmarks/published_fit.py               prints the fits; half an hour, one process
    python benchmarks/published_fit.py --quick       a coarse look
    python benchmarks/published_fit.py --kept        without the grid: only what was found before, drawn again
    python benchmarks/published_fit.py --write       and keeps them for docs/published.md

Five parameters over all three profiles: cold start, mean length of an answer, requests in flight at most,
whether a request that was cut keeps its slot, and how each run began (`published_model.Story`).

What is made small, over the profiles fitted on: first the number of figures that miss the criterion (their
median is further than 20% from the published value, and that is outside the 90% band of the repeats), then
the sum of `published_model.score`: by how much requests sent, p25, p50, mean and share cut at 300 s would
surprise the simulation, taking them as normal and independent over the repeats.

The search is a grid on common random numbers with 10 repeats, by score; the best 12 of each fit are drawn
again with 50, then the neighbours of the best one half a step away; what the fits found in this way is drawn
with 200, and each fit takes the best of them. What a profile scores does not depend on what else is fitted
on, so one grid serves all fits. The plain story is fitted on all three profiles only, for comparison.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from published_model import (
    PROFILES,
    REPEATS,
    ROOT,
    Figures,
    Parameters,
    Published,
    Story,
    as_json,
    as_row,
    judge,
    published,
    runs,
    scenario,
    score,
)

KEPT = ROOT / "docs" / "published-fit.json"
COLD_START_S = (60.0, 180.0, 300.0, 420.0, 480.0, 540.0, 570.0)
MEAN_TOKENS = (2000.0, 2250.0, 2500.0, 2750.0, 3000.0)
IN_FLIGHT = (15, 16, 17)
KEEPS_SLOT = (False, True)
COARSE, FINE, FINALISTS = 10, 50, 12


class Scores:
    """What each profile's figures are with each parameters, drawn once, and how ill they suit."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._known: dict[tuple[str, Parameters, int], list[Figures]] = {}
        self.of = {p: published(p) for p in PROFILES}

    def figures(self, profile: str, parameters: Parameters, repeats: int) -> list[Figures]:
        key = (profile, parameters, repeats)
        if key not in self._known:
            found = runs(scenario(profile, parameters, self.story), repeats)
            self._known[key] = [r.figures for r in found]
        return self._known[key]

    def one(self, profile: str, parameters: Parameters, repeats: int) -> tuple[int, float]:
        """Figures that miss the criterion, and the score."""
        of, found = self.of[profile], self.figures(profile, parameters, repeats)
        return sum(not j.holds for j in judge(of, found)), score(of, found)

    def sum(self, profiles: Iterable[str], parameters: Parameters, repeats: int) -> tuple[int, float]:
        all_ = [self.one(p, parameters, repeats) for p in profiles]
        return sum(misses for misses, _ in all_), sum(of for _, of in all_)


def grid(quick: bool) -> list[Parameters]:
    every = 2 if quick else 1
    return [
        Parameters(*values)
        for values in itertools.product(
            COLD_START_S[::every], MEAN_TOKENS[::every], IN_FLIGHT[::every], KEEPS_SLOT
        )
    ]


def neighbours(of: Parameters) -> list[Parameters]:
    steps = [(0.0, 0.0), (-30.0, 0.0), (30.0, 0.0), (0.0, -125.0), (0.0, 125.0)]
    return [
        replace(of, cold_start_s=of.cold_start_s + a, mean_output_tokens=of.mean_output_tokens + b)
        for a, b in steps
    ]


def fit(scores: Scores, on: Sequence[str], candidates: Sequence[Parameters], quick: bool) -> Parameters:
    """The best of the candidates and of the best one's neighbours."""
    few = sorted(candidates, key=lambda c: scores.sum(on, c, COARSE)[1])
    if quick:
        return few[0]
    first = min(few[:FINALISTS], key=lambda c: scores.sum(on, c, FINE))
    return min(neighbours(first), key=lambda c: scores.sum(on, c, FINE))


def before(story: Story) -> list[Parameters]:
    """What the kept fits found."""
    names = [f.name for f in fields(Parameters)]
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return [Parameters(**{n: fit[n] for n in names}) for fit in kept if fit["story"] == story]


def told(of: Published, found: Sequence[Figures]) -> list[str]:
    made = []
    for j in judge(of, found):
        low, high = j.published
        stated = f"{low:.3g}" if low == high else f"{low:.3g}-{high:.3g}"
        mark = "-" if not j.counts else "20%" if j.within else "band" if j.inside else "NO"
        made.append(f"{j.name} {j.median:.4g} [{j.band[0]:.4g}, {j.band[1]:.4g}] for {stated}: {mark}")
    return made


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--kept", action="store_true", help="choose among the kept fits, without the grid")
    asked.add_argument("--write", action="store_true", help=f"keep the fits in {KEPT.relative_to(ROOT)}")
    options = asked.parse_args()
    kept: list[dict[str, Any]] = []
    started = time.monotonic()
    pairs = list(itertools.combinations(PROFILES, 2))
    repeats = COARSE if options.quick else REPEATS
    for story in Story:
        scores, candidates = Scores(story), grid(options.quick)
        asked_for = [PROFILES, *pairs] if story is Story.FITTED else [PROFILES]
        if options.kept:
            first = before(story)
        else:
            first = [fit(scores, on, candidates, options.quick) for on in asked_for]
        for on in asked_for:
            found = min(dict.fromkeys(first), key=partial(scores.sum, on, repeats=repeats))
            by_profile = {p: round(scores.one(p, found, repeats)[1], 2) for p in PROFILES}
            entry = {"story": story, "on": list(on), **asdict(found), "score": by_profile}
            print(f"\n{story}, fitted on {', '.join(on)}: {found}  [{time.monotonic() - started:.0f} s]")
            for profile in PROFILES:
                word = "fitted" if profile in on else "predicted"
                figures = scores.figures(profile, found, repeats)
                if profile not in on:
                    entry["predicted"] = [as_row(f) for f in figures]
                print(f"  {profile} ({word}, score {by_profile[profile]}):")
                for line in told(scores.of[profile], figures):
                    print(f"    {line}")
            sys.stdout.flush()
            kept.append(entry)
    if options.write:
        KEPT.write_text(as_json(kept), encoding="utf-8")
        print(KEPT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
