"""The search on a real Ray: one replica deployed once, probes as runs of their own, and what is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raybench.analysis import summarise
from raybench.client.null_server import Answer
from raybench.fleet.bracket import Bracketing, Settings
from raybench.generator.selftest import null_server
from raybench.rundir import capacity as files
from raybench.rundir import open_run
from raybench.scenario.models import Scenario
from raybench.schema import EventKind, Events, LoadKind, RunStatus
from raybench.schema.vocabulary import Exit
from raybench.serving.deployer import status

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(240)]

SHORT = Settings(precision=1.0, at_most_s=2.0, start_per_s=4.0)
"""Far too short to measure anything."""


def scenario(**objectives: float) -> Scenario:
    """One slot, answers of a tenth of a second: 10/s would be its edge if nothing else took time."""
    return Scenario.model_validate(
        {
            "name": "small",
            "deployment": {
                "engine": "emulated",
                "model": "m",
                "slots_per_replica": 1,
                "emulated": {
                    "preset": "demo",
                    "startup": 0.2,
                    "step_base": 0.02,
                    "output_tokens": {"mean": 5},
                },
                "drain": 1.0,
            },
            "load": {
                "stages": [{"duration": 60.0, "arrival": {"process": "constant", "interval": 1.0}}],
                "request": {"prompt": "hello", "timeout": 20.0},
            },
            "objectives": objectives,
            "valid": {"lateness_p99": 5.0, "sent_ratio": 0.5},
        }
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that is there already, whose answers take a tenth of a second: quicker than a deployment."""
    with null_server(Answer(tokens=5, gap_s=0.02)) as (address, _):
        yield address


def at(url: str, **objectives: float) -> Scenario:
    keys = scenario(**objectives).model_dump(mode="json", exclude_unset=True)
    del keys["deployment"]
    return Scenario.model_validate(keys | {"target": {"url": url, "model": "null"}})


def test_a_bracket_is_found_and_every_probe_is_a_run(tmp_path: Path) -> None:
    """Started far above its edge: down by halves, until a rate is sustained."""
    lines: list[str] = []
    settings = Settings(precision=1.0, at_most_s=4.0, start_per_s=16.0)
    search = Bracketing(scenario(e2e_p95=1.5), tmp_path / "c", settings, tell=lines.append)
    found = search.run()
    assert found == files.read(tmp_path / "c")
    assert (found.status, found.exit_code, found.found) == (RunStatus.COMPLETE, Exit.GOOD, True)
    assert found.requests_per_s is not None and found.not_sustained_per_s is not None
    assert found.requests_per_s < found.not_sustained_per_s <= 2 * found.requests_per_s
    assert found.alone_s is not None and found.alone_s >= 0.08
    assert (found.measured["engine"], found.measured["slots_per_replica"]) == ("emulated", 1)
    assert found.probes[0].judged == "missed" and found.probes[-1].judged == "sustained"
    alone = open_run(tmp_path / "c" / "alone")
    assert alone.manifest.load_kind is LoadKind.CLOSED and alone.manifest.counts == {"ok": 5}
    replicas: set[str] = set()
    for probe in found.probes:
        run = open_run(tmp_path / "c" / probe.run)
        ended = RunStatus.INTERRUPTED if probe.stopped_early else RunStatus.COMPLETE
        assert run.manifest.status is ended and run.manifest.exit_code == summarise(run).exit_code
        assert run.manifest.planned == probe.planned
        assert run.manifest.scenario["load"]["stages"][0]["arrival"]["rate"] == probe.rate_per_s
        for batch in run.batches(Events, [Events.kind, Events.subject]):
            rows: list[dict[str, Any]] = batch.to_pylist()
            replicas |= {r[Events.subject] for r in rows if r[Events.kind] == EventKind.REPLICA_STATE}
            assert not any(r[Events.kind] == EventKind.DECISION for r in rows)
    assert len(replicas) == 1, "one replica, deployed once"
    assert status("raybench") is None, "and taken away"
    assert any(line.startswith("probe-01: 16/s missed") for line in lines)


def test_interrupted_it_keeps_the_bracket_so_far(tmp_path: Path, url: str) -> None:
    def tell(line: str) -> None:
        if line.startswith("probe-02: ") and " for " in line:
            search.interrupt()

    search = Bracketing(at(url, e2e_p95=15.0), tmp_path / "c", SHORT, tell=tell)
    found = search.run()
    assert found == files.read(tmp_path / "c")
    assert (found.status, found.exit_code, found.found) == (RunStatus.INTERRUPTED, Exit.INCOMPLETE, False)
    assert [p.judged for p in found.probes][1:] == ["interrupted"]
    assert (found.requests_per_s is None) != (found.not_sustained_per_s is None)


def test_what_even_an_idle_replica_misses_is_hopeless(tmp_path: Path, url: str) -> None:
    found = Bracketing(at(url, e2e_p95=0.01), tmp_path / "c", SHORT).run()
    assert (found.status, found.exit_code) == (RunStatus.COMPLETE, Exit.OBJECTIVES_MISSED)
    assert found.probes == [] and found.requests_per_s is None
    assert found.why_ended.startswith("hopeless: the median is") and "even alone" in found.why_ended


def test_interrupted_before_it_began_nothing_is_deployed(tmp_path: Path) -> None:
    search = Bracketing(scenario(e2e_p95=1.0), tmp_path / "c", SHORT)
    search.interrupt()
    found = search.run()
    assert (found.status, found.exit_code) == (RunStatus.INTERRUPTED, Exit.INCOMPLETE)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["capacity.json"]
