"""The published experiments and their simulations: what is compared, over which repeats, and by which rule.

A *story* says how the publisher's deployment stood before the load: what was up, and what a request met
while nothing was. The fitted story is in scenarios/published/every-*.yaml; the other is the one that the
published settings alone suggest. docs/published.md tells both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from raybench.analysis import oha
from raybench.analysis.source import Source
from raybench.scenario import Scenario
from raybench.scenario.load import load
from raybench.schema import Requests
from raybench.simulator import simulate

ROOT = Path(__file__).parent.parent
DIRECTORY = ROOT / "scenarios" / "published"
PROFILES = ("every-15s", "every-6s", "every-30s")
REPEATS = 200
BAND = (0.05, 0.95)
TOLERANCE = 0.2
CUT_OFF_S = 300.0
QUICK_S = 0.372
"""The tenth percentile of every-15s: the answers up to it are refusals."""


class Story(StrEnum):
    FITTED = "fitted"  # one replica was up, but for every-15s, where requests were refused until one was
    PLAIN = "plain"  # every profile began with nothing, and requests waited for the first replica


@dataclass(frozen=True)
class Parameters:
    """The four numbers that are fitted; the fifth parameter is the story, which the fastest answers tell."""

    cold_start_s: float
    mean_output_tokens: float  # of an exponential distribution, before max_tokens clips it
    max_in_flight: int
    cut_keeps_slot: bool

    @staticmethod
    def of(scenario: Scenario) -> Parameters:
        """The ones that a scenario of scenarios/published states."""
        deployment, most = scenario.deployment, scenario.load.max_in_flight
        assert deployment is not None and deployment.emulated.startup is not None and most is not None
        return Parameters(
            cold_start_s=deployment.emulated.startup,
            mean_output_tokens=deployment.emulated.output_tokens.mean,
            max_in_flight=most,
            cut_keeps_slot=scenario.simulation.gateway.cut_keeps_slot,
        )

    def overrides(self) -> dict[str, Any]:
        return {
            "deployment.emulated.startup": f"{self.cold_start_s:g}s",
            "deployment.emulated.output_tokens.mean": self.mean_output_tokens,
            "load.max_in_flight": self.max_in_flight,
            "simulation.gateway.cut_keeps_slot": self.cut_keeps_slot,
        }


def path(profile: str) -> Path:
    return DIRECTORY / f"{profile}.yaml"


def scenario(
    profile: str, parameters: Parameters | None = None, story: Story = Story.FITTED, **more: Any
) -> Scenario:
    """The profile's scenario, with other parameters where they are given. `more`: dotted keys, as `load`'s
    overrides with `__` for the dot.
    """
    changed = {} if parameters is None else parameters.overrides()
    if story is Story.PLAIN:
        changed |= {"deployment.autoscaling.min_replicas": 0, "simulation.gateway.refuse_when": None}
    return load(path(profile), changed | {key.replace("__", "."): value for key, value in more.items()})


@dataclass(frozen=True)
class Figures:
    """The five figures of the criterion, of one run; `cut` is the share of the answers. Durations from sent
    to done of everything that ended with an HTTP status, by oha's rules.
    """

    sent: float
    p25_s: float
    p50_s: float
    mean_s: float
    cut: float


FIGURES = tuple(Figures.__dataclass_fields__)


@dataclass(frozen=True)
class Run:
    """What is kept of one simulated run."""

    figures: Figures
    latencies_s: NDArray[np.float64]  # one an answer, ascending
    total_s: float

    @property
    def quick(self) -> int:
        """Answers within 0.372 s: refusals."""
        return int((self.latencies_s <= QUICK_S).sum())


def measure(source: Source) -> Run:
    """The figures, straight from the columns: the same as `summarise` gives, some twenty times as fast."""
    sent, answered, end = 0, [], 0
    columns = (Requests.sent_ns, Requests.done_ns, Requests.http_status)
    for batch in source.batches(Requests, columns):
        sent_ns, done_ns, status = (batch.column(i) for i in range(3))
        sent += len(sent_ns) - sent_ns.null_count
        there = pc.is_valid(status)
        end = max(end, pc.max(done_ns).as_py() or 0)
        answered.append(pc.subtract(done_ns, sent_ns).filter(there).to_numpy(zero_copy_only=False) / 1e9)
    latencies = np.sort(np.concatenate(answered)).astype(np.float64)
    at = dict(oha.percentiles(latencies.copy()))
    p25, p50 = at[25.0], at[50.0]
    assert p25 is not None and p50 is not None, "no answers"
    cut = float((latencies >= CUT_OFF_S).mean())
    found = Figures(float(sent), p25, p50, float(latencies.mean()), cut)
    return Run(found, latencies, end / 1e9)


def run(of: Scenario, repeat: int = 0) -> Run:
    return measure(simulate(of, repeat=repeat))


def runs(of: Scenario, repeats: int) -> list[Run]:
    """Repeats 1 to `repeats`. The same repeat draws the same random numbers whatever the parameters, so that
    parameters are compared on common random numbers.
    """
    return [run(of, repeat) for repeat in range(1, repeats + 1)]


# --- the published side ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """One profile's published figures. `cut` is known within bounds only: from the percentiles that equal
    the cut-off, and from the last bar of the histogram.
    """

    profile: str
    figures: Figures  # `cut` the middle of its bounds
    cut: tuple[float, float]
    raw: Mapping[str, Any]  # the profile's entry in reference.yaml


def reference() -> dict[str, Any]:
    return dict(yaml.safe_load((DIRECTORY / "reference.yaml").read_text(encoding="utf-8")))


def published(profile: str, whole: Mapping[str, Any] | None = None) -> Published:
    raw = (whole or reference())["profiles"][profile]
    stated, derived = raw["published"], raw["derived"]
    low, high = (n / derived["answered"] for n in derived["cut_at_300s"])
    figures = Figures(
        sent=derived["sent_requests"],
        p25_s=stated["percentiles"][25],
        p50_s=stated["percentiles"][50],
        mean_s=stated["average_s"],
        cut=(low + high) / 2,
    )
    return Published(profile, figures, (low, high), raw)


# --- the criterion -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One figure of one profile: ours over the repeats beside the published one."""

    name: str
    published: tuple[float, float]  # equal but for the cut share
    median: float
    band: tuple[float, float]  # 90% of the repeats
    counts: bool  # a percentile that equals the cut-off does not

    @property
    def within(self) -> bool:
        """Whether the median is no further than 20% from the published value."""
        low, high = self.published
        return low * (1 - TOLERANCE) <= self.median <= high * (1 + TOLERANCE)

    @property
    def inside(self) -> bool:
        """Whether the published value, or a part of its bounds, is in the band."""
        return self.published[1] >= self.band[0] and self.published[0] <= self.band[1]

    @property
    def holds(self) -> bool:
        return self.within or self.inside or not self.counts


def judge(of: Published, found: Sequence[Figures]) -> list[Judged]:
    """Every figure of a profile over the repeats. The band's ends are nearest ranks."""
    judged = []
    for name in FIGURES:
        values = sorted(getattr(f, name) for f in found)
        low, high = (values[max(0, int(np.ceil(share * len(values))) - 1)] for share in BAND)
        value = getattr(of.figures, name)
        bounds = of.cut if name == "cut" else (value, value)
        counts = not (name.startswith("p") and value >= CUT_OFF_S)
        judged.append(Judged(name, bounds, median(values), (low, high), counts))
    return judged


def score(of: Published, found: Sequence[Figures]) -> float:
    """How ill the repeats suit one profile; smaller is better.

    The negative logarithm of a normal density at the published value, summed over the five figures:

        1/2 ((published - mean) / s)^2 + ln(s / scale)        s^2 = variance of the repeats + (scale / 10)^2

    `scale` is the published value; a tenth of it is what the model is allowed to be wrong by itself. The
    logarithm keeps wide repeats from being the best ones. For the cut share the published value is the point
    of its bounds nearest to the mean, and the scale at least 0.05.
    """
    total = 0.0
    for name in FIGURES:
        values = np.array([getattr(f, name) for f in found])
        mean, value = float(values.mean()), float(getattr(of.figures, name))
        if name == "cut":
            value = min(max(mean, of.cut[0]), of.cut[1])
        scale = max(value, 0.05) if name == "cut" else value
        s = float(np.hypot(values.std(), scale / 10))
        total += 0.5 * ((value - mean) / s) ** 2 + float(np.log(s / scale))
    return total


def as_row(figures: Figures) -> list[float]:
    """For JSON; rounded far below what is printed."""
    return [round(v, 6) for v in asdict(figures).values()]


def as_json(kept: Any) -> str:
    """One line a list of numbers, so that a difference can be read."""
    text = json.dumps(kept, indent=1)
    lines: list[str] = []
    for line in text.split("\n"):
        inside = bool(lines) and lines[-1].rstrip().endswith(("[", ",")) and _is_number(line)
        closes = bool(lines) and line.strip() in ("]", "],") and _is_number(lines[-1].split(" ")[-1])
        if inside or closes:
            lines[-1] += ("" if lines[-1].endswith("[") or closes else " ") + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _is_number(text: str) -> bool:
    try:
        float(text.strip().strip(",[]"))
    except ValueError:
        return False
    return True
