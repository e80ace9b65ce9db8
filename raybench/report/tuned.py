"""What a search for settings found, as text, Markdown or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from raybench.analysis.question import SUCCESS_RATE, Objective
from raybench.report import markdown, text
from raybench.report.bill import amount
from raybench.report.blocks import Block, Grid, Lines, Pairs, Section, Verbatim
from raybench.report.tuned_json import to_object
from raybench.report.units import NOTHING, duration, number, per_second, percent
from raybench.scenario import Scenario
from raybench.tuning.confidence import least_share
from raybench.tuning.found import OWN, Confirmation, Fate, Tuned
from raybench.tuning.search import Rules
from raybench.tuning.settings import Grid as Searched
from raybench.tuning.trial import Against

FORMATS = ("text", "markdown", "json")
MOST_ROWS = 20
"""Dominated settings that are listed unless all are asked for; JSON has them all."""

_SHORT = {
    "scale_up_queue_depth": "up",
    "scale_down_queue_depth": "down",
    "autoscaling_window": "window",
    "min_replicas": "min",
    "max_replicas": "max",
}


@dataclass(frozen=True)
class Tuning:
    """A search with all that its report says. `confirming`: the scenario to run live, as YAML."""

    scenario: Scenario
    objectives: tuple[Objective, ...]
    against: Against
    rules: Rules
    searched: Searched
    found: Tuned
    engine: str  # whose figures were simulated
    price_per_replica_hour: float | None = None
    confirming: str | None = None
    written_to: str | None = None

    def cost(self, replica_seconds: float | None) -> float | None:
        """In the currency of the price; None without one."""
        price = self.price_per_replica_hour
        return None if price is None or replica_seconds is None else replica_seconds / 3600 * price

    def confirmed_by(self, confirming: str, written_to: str | None) -> Tuning:
        return replace(self, confirming=confirming, written_to=written_to)


def render(tuning: Tuning, format: str = "text", *, every: bool = False) -> str:
    """`every`: all dominated settings. Raises ValueError for a format there is not."""
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: one of {', '.join(FORMATS)} is right")
    if format == "json":
        return json.dumps(to_object(tuning), indent=1, ensure_ascii=False, allow_nan=False)
    made = [_about(tuning), _result(tuning), _frontier(tuning), _rest(tuning, every), _confirm(tuning)]
    parts = [section for section in made if section is not None]
    return markdown.document(parts) if format == "markdown" else text.document(parts)


def comment(t: Tuning) -> Sequence[str]:
    """What stands above the scenario that would confirm the chosen setting."""
    chosen = t.found.chosen
    assert chosen is not None
    met = next((c.met for c in t.found.confirmations if c.passed), None)
    how = "in the simulated run" if met is None else f"in {met} of {t.rules.runs} simulated runs"
    which = "its own setting" if chosen == OWN else f"setting #{chosen} of {len(t.found.standings)}"
    return (
        f"Found by raybench tune for {t.scenario.name}: {which}, which met the objectives {how}",
        f"at {_tenths(t.found.standings[chosen].replica_seconds)} replica-seconds a run. To measure it:",
        "    raybench run THIS-FILE",
    )


def label(t: Tuning, i: int) -> str:
    """`up 5, down 1, window 10s, min 0, max 2`: what is varied, with the policy where there are several."""
    setting = t.searched.settings[i]
    if not setting.values:
        return f"{setting.policy}, as in the scenario"
    words = ", ".join(f"{_SHORT.get(key, key)} {_word(value)}" for key, value in setting.values)
    several = len({s.policy for s in t.searched.settings}) > 1
    return f"{setting.policy}: {words}" if several else words


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- what was asked ---------------------------------------------------------------------------------------


def _about(t: Tuning) -> Section:
    f, settings = t.found, t.searched.settings
    policies = dict.fromkeys(s.policy for s in settings[1:] or settings)
    searched = (
        f"{number(len(settings))} settings of {', '.join(policies)}; {number(f.simulated)} simulated runs"
    )
    if t.searched.left_out:
        searched += (
            f"; {number(t.searched.left_out)} combinations left out, which contradict themselves "
            f"({t.searched.why_left_out})"
        )
    limits = [
        f"{o.name} at least {percent(o.limit)}"
        if o.metric == SUCCESS_RATE
        else f"{o.name} at most {duration(o.limit)}"
        for o in t.objectives
    ]
    rows = (
        ("load", f"{duration(t.scenario.load.duration_s)} of {t.scenario.name}, seed {t.scenario.seed}"),
        ("engine", f"simulated with {t.engine}"),
        ("objectives", ", ".join(limits)),
        ("searched", searched),
        ("good enough", _rule(t)),
    )
    return Section(f"Tuning {t.scenario.name}", (Pairs(rows),))


def _rule(t: Tuning) -> str:
    if not t.found.random:
        return (
            "nothing in this scenario is drawn at random, so that one run of each setting says all that a "
            "simulation can, and nothing of chance"
        )
    return (
        f"at least {_share(t.rules.share)} of all runs meet every objective, with "
        f"{_share(t.rules.confidence)} confidence: exact binomial, {number(t.rules.runs)} fresh runs of "
        "each candidate"
    )


# --- what was found ---------------------------------------------------------------------------------------


def _result(t: Tuning) -> Section:
    f = t.found
    lines = [_headline(t), *(_confirmed(t, c) for c in f.confirmations)]
    if f.chosen is not None:
        lines.append(_costs(t, f.chosen))
    elif f.nearest is not None:
        lines.append(_nearest(t, f.nearest))
        lines += [] if f.interrupted else [_advice(t)]
    if all(o.metric != SUCCESS_RATE for o in t.objectives):
        lines.append(
            "success_rate is no objective here, so that a setting under which requests fail may look good."
        )
    if t.scenario.load.concurrency is not None:
        lines.append(
            "In a closed loop a slower setting gets its load more slowly: cost and goodput are of the same "
            "requests, in whatever time they took."
        )
    return Section("Result", (Lines(tuple(lines)),))


def _headline(t: Tuning) -> str:
    f = t.found
    if f.interrupted:
        return f"INTERRUPTED after {number(f.simulated)} simulated runs; this is what is known so far."
    if f.chosen is None:
        return "NO SETTING that was searched can be said to meet the objectives."
    if f.chosen == OWN:
        return "The scenario's own setting is the cheapest that meets the objectives."
    return f"The cheapest setting that meets the objectives is #{f.chosen}: {label(t, f.chosen)}."


def _confirmed(t: Tuning, c: Confirmation) -> str:
    who = f"#{c.setting}" if c.setting != OWN else "#0, the scenario's own,"
    met = f"{who} met the objectives in {_of(c.met, c.runs, 'fresh ')}"
    if c.passed is None:
        return f"{met} before the interruption."
    if c.passed:
        least = math.floor(least_share(c.met, c.runs, c.error) * 1000) / 1000  # a bound is rounded down
        return f"{met}: at least {_share(least)} of all runs do, with {_share(1 - c.error)} confidence."
    allowed = f"{c.allowed} {'miss is' if c.allowed == 1 else 'misses are'} allowed in {number(t.rules.runs)}"
    return f"{met}: too few, as {allowed}."


def _costs(t: Tuning, i: int) -> str:
    s, saving = t.found.standings[i], t.found.saving
    half = f" ± {number(s.replica_seconds_half)}" if s.replica_seconds_half else ""
    words = f"It costs {_tenths(s.replica_seconds)}{half} replica-seconds a run"
    if t.price_per_replica_hour is not None:
        words += f", {amount(t.cost(s.replica_seconds))} at {amount(t.price_per_replica_hour)} a replica-hour"
    if i == OWN or saving is None or saving.share is None:
        return f"{words}."
    if saving.replica_seconds == 0:
        words += ", as much as the scenario's own setting"
    else:
        words += (
            f": {_share(abs(saving.share))} {'less' if saving.share > 0 else 'more'} than the scenario's own"
        )
    if saving.half is not None:
        words += (
            f" ({number(abs(saving.replica_seconds))} ± {number(saving.half)} replica-seconds, paired over "
            f"{number(saving.runs)} fresh runs)"
        )
    return f"{words}, which met the objectives in {_of(saving.own_met, saving.runs)}."


def _nearest(t: Tuning, i: int) -> str:
    """Which objectives it missed, and where it is with them."""
    s = t.found.standings[i]
    missed = [
        f"{o.name} missed in {number(n)}, {_value(o, value)} in the middle one"
        for o, value, n in zip(t.objectives, s.values, s.missed, strict=bool(s.values))
        if n
    ]
    if s.invalid:
        missed.append(f"{number(s.invalid)} would be INVALID")
    why = f" ({'; '.join(missed)})" if missed else ""
    lead = "The best so far" if t.found.interrupted else "The nearest"
    return f"{lead} is #{i}: {label(t, i)}. It met the objectives in {_of(s.met, s.runs)} of the search{why}."


def _advice(t: Tuning) -> str:
    deployment = t.scenario.deployment
    most = deployment.autoscaling.max_replicas if deployment else 1
    return (
        f"More replicas may help: --vary max_replicas={most},{most + 1},{2 * most + 1} is an example. So may "
        "other values (--vary), another policy (--policy), or more slots_per_replica."
    )


# --- every setting ----------------------------------------------------------------------------------------


def _frontier(t: Tuning) -> Section:
    f = t.found
    rows = sorted(_shown(t), key=lambda i: (f.standings[i].replica_seconds or 0.0, i))
    besides = ", but for those that name what beats them" if len(rows) > len(f.frontier) else ""
    notes = [f"Nothing that was searched is both cheaper and better than one of these{besides}."]
    if f.random:
        notes.append(
            "Cost and goodput are means over the runs of the search; the other figures are its middle run's."
        )
    return Section(f"The frontier of cost against {t.against.name}", (_grid(t, rows), Lines(tuple(notes))))


def _shown(t: Tuning) -> set[int]:
    """The frontier, and those that are looked for beside it."""
    f = t.found
    return {*f.frontier, OWN, *(i for i in (f.chosen, f.nearest) if i is not None)}


def _rest(t: Tuning, every: bool) -> Section | None:
    standings = t.found.standings
    rest = sorted(
        (i for i, s in enumerate(standings) if s.fate in (Fate.DOMINATED, Fate.SAME) and i not in _shown(t)),
        key=lambda i: (standings[i].fate is Fate.SAME, standings[i].replica_seconds or 0.0, i),
    )
    if not rest:
        return None
    dominated = [i for i in rest if standings[i].fate is Fate.DOMINATED]
    shown = rest if every else dominated[:MOST_ROWS]
    lines = []
    if len(shown) < len(dominated):
        lines.append(f"and {number(len(dominated) - len(shown))} more (--all shows them).")
    if dominated:
        lines.append(
            "Dominated: under the same loads, the setting named is at least as cheap and as good, and better "
            "in one."
        )
    if same := len(rest) - len(dominated):
        named = "" if every else " (--all names it)"
        lines.append(f"{number(same)} others did exactly as another setting in every run{named}.")
    blocks: list[Block] = [_grid(t, shown)] * bool(shown)
    return Section("Not worth it", (*blocks, Lines(tuple(lines))))


def _grid(t: Tuning, rows: Sequence[int]) -> Grid:
    money = ("cost",) if t.price_per_replica_hour is not None else ()
    head = (
        "#",
        "setting",
        "met",
        "replica-s",
        *money,
        "goodput",
        *_extra(t),
        *(o.name for o in t.objectives),
        "",
    )
    return Grid(head, tuple(_row(t, i) for i in rows), left=(1, len(head) - 1))


def _extra(t: Tuning) -> tuple[str, ...]:
    """The latency that cost is weighed against, where it has no column as an objective."""
    known = t.against.percent is None or t.against.name in (o.name for o in t.objectives)
    return () if known else (t.against.name,)


def _row(t: Tuning, i: int) -> tuple[str, ...]:
    s = t.found.standings[i]
    money = (amount(t.cost(s.replica_seconds)),) if t.price_per_replica_hour is not None else ()
    values = [_value(o, v) for o, v in zip(t.objectives, s.values, strict=bool(s.values))]
    return (
        str(i),
        label(t, i),
        f"{s.met}/{s.runs}" if s.runs else NOTHING,
        _tenths(s.replica_seconds),
        *money,
        per_second(s.goodput_per_s),
        *(_latency(s.against) for _ in _extra(t)),
        *(values or [NOTHING] * len(t.objectives)),
        _note(t, i),
    )


def _note(t: Tuning, i: int) -> str:
    s, f = t.found.standings[i], t.found
    words = ["CHOSEN"] * (i == f.chosen) + ["nearest"] * (i == f.nearest) + ["own"] * (i == OWN)
    if s.fate is Fate.DOMINATED:
        words.append(f"dominated by #{s.by}")
    if s.fate is Fate.SAME:
        words.append(f"did as #{s.by}")
    if s.fate is Fate.UNTRIED:
        words.append("not tried")
    return ", ".join(words)


def _confirm(t: Tuning) -> Section | None:
    if t.confirming is None:
        return None
    if t.written_to:
        words = f"raybench run {t.written_to}"
    else:
        words = "--write FILE keeps this; then: raybench run FILE"
    return Section("To confirm it live", (Lines((words,)), Verbatim(t.confirming.rstrip("\n"))))


def _of(met: int, runs: int, kind: str = "") -> str:
    return f"{number(met)} of {number(runs)} {kind}run{'' if runs == 1 else 's'}"


def _share(ratio: float) -> str:
    return f"{ratio * 100:.4g}%"


def _tenths(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.1f}"


def _value(o: Objective, value: float) -> str:
    return percent(value) if o.metric == SUCCESS_RATE else _latency(value)


def _latency(value: float | None) -> str:
    """Among the timeouts, or of nothing that was answered, it is not known."""
    return "unknown" if value is None or not math.isfinite(value) else duration(value)
