"""A node that dies in the middle of the load: its generators go on elsewhere, and what it had is counted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from conftest import note_addresses_in
from ray.cluster_utils import Cluster

from raybench.analysis import Question, summarise
from raybench.fleet import placement
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.generator.selftest import Answer, null_server
from raybench.rundir import open_run
from raybench.scenario import load
from raybench.schema import Requests, RunStatus

RATE, SECONDS = 40, 24


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The node that takes the generators, beside a head that could."""
    # On one machine everything is on loopback; these generators are to be elsewhere nevertheless.
    monkeypatch.setattr(placement, "is_on_loopback", lambda scenario: False)
    directory = tempfile.mkdtemp(prefix="rbl", dir="/tmp")
    note_addresses_in(Path(directory), monkeypatch)
    memory = {"object_store_memory": 80 * 2**20}
    # Ray believes in a silent node for half a minute; here it gives up after two seconds.
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {
        "num_cpus": 2,
        "include_dashboard": False,
        "temp_dir": directory,
        "_system_config": quick,
        **memory,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        node = cluster.add_node(num_cpus=2, resources={placement.RESOURCE: 1}, **memory)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield node
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def test_generators_of_a_node_that_dies_go_on_elsewhere(nodes: Any, tmp_path: Path) -> None:
    killed: list[float] = []

    def kill(s: Snapshot) -> None:
        if s.stage == "load" and s.sent >= 2 * RATE and not killed:
            nodes.kill_raylet()  # with SIGKILL; its workers go with it
            killed.append(s.t_s)

    with null_server(Answer(tokens=4)) as (url, _):
        stage = {"duration": f"{SECONDS}s", "arrival": {"process": "constant", "rate": f"{RATE}/s"}}
        request = {"prompt": "x", "max_tokens": 4, "timeout": "5s"}
        keys = {"stages": [stage], "request": request, "generators": 2}
        path = tmp_path / "scenario.yaml"
        path.write_text(yaml.safe_dump({"name": "t", "target": {"url": url, "model": "m"}, "load": keys}))
        conductor = Conductor(load(path), Output(tmp_path / "run"))
        conductor.watch(kill)
        manifest = conductor.run()
    first, second = ({h.node for h in manifest.hosts[i : i + 2]} for i in (0, 2))
    assert killed and len(manifest.hosts) == 4 and not first & second, "elsewhere"
    assert manifest.status is RunStatus.COMPLETE
    assert sum("was lost" in p for p in manifest.problems) == 2
    found = open_run(tmp_path / "run")
    ids = sorted(i for b in found.batches(Requests, [Requests.request_id]) for i in b.column(0).to_pylist())
    assert ids[-2:] == [RATE * SECONDS - 2, RATE * SECONDS - 1], "both go on to the end"
    accounting = summarise(found, Question()).accounting
    assert accounting.balances and accounting.outcomes["lost"] == RATE * SECONDS - len(ids) > 0
    assert accounting.outcomes["ok"] == len(ids)
