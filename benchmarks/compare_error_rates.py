"""How often `raybench compare` is wrong: false alarms on pairs of runs that do not differ, and how often it
finds latencies that are 5% longer.

    python benchmarks/compare_error_rates.py                 everything: most of an hour, one process
    python benchmarks/compare_error_rates.py --pairs 50      a look

Latencies are those of a single server with random arrivals and random service (the Lindley recursion, started
in its stationary state), at utilisation 0.5, 0.7 and 0.9: the busier, the longer it remembers. *Paired* runs
share their schedule and their prompts, so arrivals are the same and service times differ by 20% noise;
*unpaired* runs share nothing. The whole comparison runs, bar reading files. Prints the tables of
docs/comparing-runs.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.aligned import Aligned
from raybench.analysis.columns import OK, Rows
from raybench.analysis.compare import Figure, Finding, Settings, compare_runs
from raybench.analysis.compared import Kind, Run, kinds
from raybench.analysis.question import Anchor, Objective

Floats = NDArray[np.float64]

NOISE = 0.2
PREFILL_S = 0.1
TOKENS = 100
SHIFT = 0.05
FALSE_ALARMS = [(0.5, 5_000), (0.7, 10_000), (0.9, 40_000)]
POWER = {
    "paired": [(0.5, 8_000), (0.7, 20_000), (0.9, 130_000)],
    "unpaired": [(0.5, 50_000), (0.7, 200_000), (0.9, 1_800_000)],
}
SHOWN = ("ttft_p50", "ttft_p99", "e2e_p50", "e2e_p90", "e2e_p99", "e2e_mean", "goodput")


def waiting(gaps: Floats, service: Floats, first: float) -> Floats:
    """Lindley: W[i+1] = max(0, W[i] + S[i] − A[i+1]), W[0] = first; as a running minimum of partial sums."""
    walk = first + np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    return np.asarray(walk - np.minimum(np.minimum.accumulate(walk), 0.0))


def stationary(rng: np.random.Generator, load: float) -> float:
    """A waiting time of M/M/1 in its stationary state: 0, or exponential, at mean service time `load`."""
    return float(rng.exponential(load / (1 - load))) if rng.random() < load else 0.0


def run(schedule: str, gaps: Floats, service: Floats, first: float, stretch: float = 1.0) -> Run:
    """A run whose every request ended well; every latency `stretch` times as long."""
    n = len(gaps)
    wait = (waiting(gaps, service, first) + PREFILL_S) * stretch
    whole = wait + service * stretch
    rows = Rows(
        outcome=np.full(n, OK, np.int8),
        answered=np.ones(n, np.bool_),
        lateness=np.zeros(n, np.int64),
        ttft=np.rint(wait * 1e9).astype(np.int64),
        e2e=np.rint(whole * 1e9).astype(np.int64),
        tpot=service * stretch * 1e9 / (TOKENS - 1),
        tokens=np.full(n, TOKENS, np.int32),
        stage=np.zeros(n, np.int16),
        group=np.zeros(n, np.int32),
    )
    start = np.rint(np.cumsum(gaps) * 1e9).astype(np.int64)
    everything = np.ones(n, np.bool_)
    aligned = Aligned(rows, everything, start, Anchor.SCHEDULED, 300.0)
    return Run(schedule, aligned, np.arange(n), objectives=(Objective("e2e", 10.0, 95),))


def pair(
    rng: np.random.Generator, load: float, n: int, *, paired: bool, stretch: float = 1.0
) -> tuple[Run, Run]:
    """Two runs of `n` requests at utilisation `load`; the second one's latencies `stretch` times as long."""
    found = []
    gaps, service, first = rng.exponential(1, n), rng.exponential(load, n), stationary(rng, load)
    for side, by in (("a", 1.0), ("b", stretch)):
        if paired:
            own = service * rng.lognormal(-(NOISE**2) / 2, NOISE, n)
            found.append(run("same", gaps, own, first, by))
        else:
            gaps, service, first = rng.exponential(1, n), rng.exponential(load, n), stationary(rng, load)
            found.append(run(side, gaps, service, first, by))
    return found[0], found[1]


def figures_of(
    seed: int,
    pairs: int,
    load: float,
    n: int,
    *,
    paired: bool,
    stretch: float,
    what: Sequence[Kind],
    resamples: int,
) -> list[tuple[Figure, ...]]:
    found = []
    for number in range(pairs):
        rng = np.random.default_rng([seed, number, round(load * 100), n, paired])
        base, new = pair(rng, load, n, paired=paired, stretch=stretch)
        found.append(compare_runs([base], [new], what, Settings(resamples=resamples, seed=number)))
    return found


def alarmed(figures: Sequence[Figure]) -> bool:
    """Whether the verdict says that anything differs, better or worse."""
    return any(f.finding in (Finding.REGRESSION, Finding.IMPROVEMENT) for f in figures)


def significant(figure: Figure) -> bool:
    """The figure's own test at 5%, where it makes one."""
    return figure.finding is not Finding.UNDECIDED and figure.p is not None and figure.p <= 0.05


def rate(hits: int, of: int) -> str:
    """A share with its 95% interval (E. B. Wilson, 1927)."""
    if of == 0:
        return "-"
    z, p = 1.96, hits / of
    middle, reach = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = ((middle + s * reach) / (1 + z * z / of) for s in (-1, 1))
    return f"{p:.1%} ({max(0, low):.1%} to {high:.1%})"


def false_alarms(pairs: int, resamples: int) -> None:
    what = [k for k in kinds(closed=False) if k.name in SHOWN]
    print(f"\nFalse alarms, {pairs} pairs each\n")
    print("| runs | utilisation | requests | verdict | " + " | ".join(SHOWN) + " |")
    print("|---|---|---|---|" + "---|" * len(SHOWN))
    for design in ("paired", "unpaired"):
        for load, n in FALSE_ALARMS:
            found = figures_of(
                1, pairs, load, n, paired=design == "paired", stretch=1.0, what=what, resamples=resamples
            )
            own, untold = Counter[str](), Counter[str]()
            for figures in found:
                own.update(f.name for f in figures if significant(f))
                untold.update(f.name for f in figures if f.finding is Finding.UNDECIDED)
            cells = [
                f"{rate(own[name], pairs)}" + (f", {untold[name] / pairs:.0%} untold" if untold[name] else "")
                for name in SHOWN
            ]
            verdict = rate(sum(map(alarmed, found)), pairs)
            print(f"| {design} | {load} | {n:,} | {verdict} | " + " | ".join(cells) + " |", flush=True)


def power(pairs: int, resamples: int, designs: Sequence[str]) -> None:
    """Found: significant by its own test, and as one of all headline figures (after Holm). The long series
    are tested for the one figure only, and the longest on a fifth of the pairs: they cost seconds each.
    """
    print(f"\nLatencies {SHIFT:.0%} longer: how often e2e_p50 says so\n")
    print("| runs | utilisation | requests | pairs | by itself | among the headline figures | interval |")
    print("|---|---|---|---|---|---|---|")
    for design in designs:
        for load, n in POWER[design]:
            long = n > 20_000
            what = [k for k in kinds(closed=False) if (k.name == "e2e_p50" if long else k.headline)]
            count = pairs if n < 1_000_000 else max(1, pairs // 5)
            found = figures_of(
                2,
                count,
                load,
                n,
                paired=design == "paired",
                stretch=1 + SHIFT,
                what=what,
                resamples=resamples,
            )
            median = [next(f for f in figures if f.name == "e2e_p50") for figures in found]
            alone = sum(significant(f) and (f.difference or 0) > 0 for f in median)
            among = sum(f.finding is Finding.REGRESSION for f in median)
            ends = [f.ratio_interval for f in median if f.ratio_interval]
            reach = np.median([(high or 0) - (low or 0) for low, high in ends]) / 2
            print(
                f"| {design} | {load} | {n:,} | {count} | {rate(alone, count)} | "
                f"{'not run' if long else rate(among, count)} | ±{reach:.1%} |",
                flush=True,
            )


def repeats(pairs: int, resamples: int) -> None:
    """Systems that do not differ, but whose every start is faster or slower by 5% (standard deviation)."""
    load, n = 0.5, 3000
    what = [k for k in kinds(closed=False) if k.headline]
    print("\nFalse alarms where every start of the same system differs by 5%, unpaired\n")
    print("| runs a side | utilisation | requests | verdict | e2e_p50 |")
    print("|---|---|---|---|---|")
    for count in (1, 2, 3, 5):
        own, verdicts = 0, 0
        for number in range(pairs):
            rng = np.random.default_rng([5, number, count])
            made = [
                run(
                    f"schedule {i}",
                    rng.exponential(1, n),
                    rng.exponential(load, n),
                    stationary(rng, load),
                    float(rng.lognormal(0, 0.05)),
                )
                for i in range(2 * count)
            ]
            chosen = Settings(resamples=resamples, seed=number)
            figures = compare_runs(made[:count], made[count:], what, chosen)
            own += sum(significant(f) for f in figures if f.name == "e2e_p50")
            verdicts += alarmed(figures)
        print(f"| {count} | {load} | {n:,} | {rate(verdicts, pairs)} | {rate(own, pairs)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--only", choices=["false-alarms", "power-paired", "power-unpaired", "repeats"])
    options = parser.parse_args()
    begun = time.monotonic()
    if options.only in (None, "false-alarms"):
        false_alarms(options.pairs, options.resamples)
    if options.only in (None, "repeats"):
        repeats(max(1, options.pairs * 2 // 5), options.resamples)
    designs = [d for d in POWER if options.only in (None, f"power-{d}")]
    if designs:
        power(options.pairs, options.resamples, designs)
    print(f"\n{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
