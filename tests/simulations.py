"""Small scenarios to simulate and their rows, and what must hold in every simulated run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raybench.scenario import Scenario
from raybench.schema import Events, LoadKind, Outcome, Requests, Table, Timeline
from raybench.simulator import Simulated, simulate

NO_DELAYS = {
    "control_tick": 0.1,
    "metrics_interval": 0.5,
    "look_back": 1.0,
    "start_delay": 0.0,
    "stop_delay": 0.0,
    "network": 0.0,
    "dispatch": 0.0,
}


def scenario(
    *,
    arrival: dict[str, Any] | None = None,
    duration: float = 60.0,
    stages: list[dict[str, Any]] | None = None,
    slots: int = 4,
    autoscaling: dict[str, Any] | None = None,
    emulated: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    load: dict[str, Any] | None = None,
    gateway: dict[str, Any] | None = None,
    serve: dict[str, Any] | None = None,
    deployment: dict[str, Any] | None = None,
    **more: Any,
) -> Scenario:
    """A scenario on one replica unless `autoscaling` says otherwise; times in seconds."""
    stage = {"duration": duration, "arrival": arrival or {"process": "constant", "rate": 1.0}}
    return Scenario.model_validate(
        {
            "name": "small",
            "deployment": {
                "engine": "emulated",
                "model": "m",
                "slots_per_replica": slots,
                "router": {"initial_backoff": 0.0, "max_backoff": 0.0},
                "emulated": {
                    "preset": "demo",
                    "startup": 2.0,
                    "output_tokens": {"distribution": "fixed", "mean": 40},
                    **(emulated or {}),
                },
                "autoscaling": {"min_replicas": 1, "max_replicas": 1, **(autoscaling or {})},
                **(deployment or {}),
            },
            "load": {
                "stages": stages or [stage],
                "request": {"prompt": "Why is the sky blue?", "timeout": 300.0, **(request or {})},
                **(load or {}),
            },
            "simulation": {"gateway": gateway or {}, "serve": {**NO_DELAYS, **(serve or {})}},
            **more,
        }
    )


def table(run: Simulated, of: type[Table]) -> pa.Table:
    return pa.Table.from_batches(list(run.batches(of, list(of.columns))), of.schema)


def rows(run: Simulated, of: type[Table] = Requests) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(run, of).to_pylist()
    return found


def events(run: Simulated) -> list[tuple[float, str, str, dict[str, Any]]]:
    """(seconds, kind, subject, detail), in order."""
    return [
        (e[Events.t_ns] / 1e9, e[Events.kind], e[Events.subject], json.loads(e[Events.detail]))
        for e in rows(run, Events)
    ]


def column(run: Simulated, name: str, of: type[Table] = Requests) -> npt.NDArray[np.float64]:
    """A column as floats, nan for null."""
    return np.asarray(table(run, of)[name].cast(pa.float64()).to_numpy(), np.float64)


def waits_s(run: Simulated) -> npt.NDArray[np.float64]:
    """From sent to the replica of every request that came to one. Needs streams and no network."""
    return (column(run, Requests.headers_ns) - column(run, Requests.sent_ns)) / 1e9


def assert_sound(run: Simulated) -> None:
    """What holds in every run, whatever it is of: nothing is lost, and time goes forward."""
    requests = rows(run)
    ids = [r[Requests.request_id] for r in requests]
    assert ids == list(range(run.manifest.planned))
    assert sum(run.manifest.counts.values()) == run.manifest.planned
    for r in requests:
        way = [r[name] for name in (
            Requests.anchor_ns, Requests.sent_ns, Requests.connected_ns, Requests.headers_ns,
            Requests.first_token_ns, Requests.last_token_ns, Requests.done_ns,
        ) if r[name] is not None]  # fmt: skip
        assert way == sorted(way), r
        unsent = r[Requests.outcome] == Outcome.NOT_SENT
        assert (r[Requests.sent_ns] is None) == unsent == (r[Requests.done_ns] is None)
        ok = r[Requests.outcome] == Outcome.OK
        assert (r[Requests.error] is None) == ok
        assert (r[Requests.output_tokens] is not None) == ok
        stamps = r[Requests.chunk_ns]
        if stamps is not None:
            assert stamps[0] == 0 and stamps == sorted(stamps) and len(stamps) == r[Requests.chunks]
            last = r[Requests.first_token_ns] + stamps[-1]
            assert abs(last - r[Requests.last_token_ns]) < 1_000
    states: dict[str, list[str]] = {}
    for _, kind, subject, detail in events(run):
        if kind == "replica_state":
            assert detail["previous"] == (states[subject][-1] if subject in states else None)
            states.setdefault(subject, []).append(detail["state"])
    whole = ["starting", "running", "stopping", "stopped"]
    for life in states.values():
        assert life == [state for state in whole if state in life]
    timeline = rows(run, Timeline)
    assert all(row[Timeline.in_flight] >= 0 for row in timeline)
    if run.manifest.load_kind is LoadKind.OPEN:
        assert all(r[Requests.sent_ns] == r[Requests.anchor_ns] for r in requests)


def run(*, repeat: int = 0, tick_all: bool = False, **keys: Any) -> Simulated:
    """Simulates `scenario(**keys)` and checks that it is sound."""
    found = simulate(scenario(**keys), repeat=repeat, tick_all=tick_all)
    assert_sound(found)
    return found
