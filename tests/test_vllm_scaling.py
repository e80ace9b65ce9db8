"""A whole run on the real engine: two vLLM replicas come and go under load, and no answer is cut short.

Only what does not depend on the machine's speed is asserted: a slower one waits longer at each step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_llama import require_vllm, tiny_llama

require_vllm()

from raybench.fleet.conductor import Conductor  # noqa: E402
from raybench.fleet.output import Output  # noqa: E402
from raybench.rundir import open_run  # noqa: E402
from raybench.scenario import load  # noqa: E402
from raybench.schema import EventKind, Events, Replicas, Requests, Table  # noqa: E402

TOKENS = 600

SCENARIO: dict[str, Any] = {
    "name": "vllm-scaling",
    "deployment": {
        "engine": "vllm",
        "model": "tiny-llama",
        "engine_args": {"dtype": "bfloat16", "max_model_len": 2048, "kv_cache_memory_bytes": 64 * 2**20},
        "replica": {"cpus": 0.5, "memory": "1Gi", "gpus": 0},
        "slots_per_replica": 2,
        "autoscaling": {"autoscaling_window": "1500ms", "min_replicas": 0, "max_replicas": 2},
    },
    "load": {
        "stages": [
            # Eight at once are more than two slots hold: the queue asks for the second replica.
            {"duration": "1s", "arrival": {"process": "constant", "rate": "8/s"}},
            # Then one answer or two at a time, so that the step down meets a busy replica.
            {"duration": "60s", "arrival": {"process": "constant", "interval": "4s"}},
        ],
        "request": {
            "prompt": "Describe an autoscaler.",
            "max_tokens": TOKENS,
            "temperature": 0,
            "timeout": "250s",
            "extra": {"ignore_eos": True},
        },
        "settle": {"at_most": "200s"},
    },
}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_cluster")
def test_two_real_replicas_come_and_go_and_no_stream_is_cut(tmp_path: Path) -> None:
    scenario = json.loads(json.dumps(SCENARIO))
    scenario["deployment"]["engine_args"]["model"] = str(tiny_llama())
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario))
    conductor = Conductor(load(path), Output(tmp_path / "run"))
    conductor.run()
    found = open_run(tmp_path / "run")

    def rows(table: type[Table]) -> list[dict[str, Any]]:
        return [r for b in found.batches(table, list(table.columns)) for r in b.to_pylist()]

    requests = rows(Requests)
    assert len(requests) == found.manifest.planned == 23
    for row in requests:
        assert row[Requests.outcome] == "ok", row
        assert row[Requests.output_tokens] == TOKENS and row[Requests.finish_reason] == "length"

    events = sorted(rows(Events), key=lambda r: r[Events.t_ns])
    steps = [
        (detail["from"], detail["to"])
        for r in events
        if r[Events.kind] in (EventKind.DECISION, EventKind.TARGET_CHANGED)
        and (detail := json.loads(r[Events.detail]))
    ]
    assert steps[0] == (0, 1) and (1, 2) in steps and (2, 1) in steps and steps[-1] == (1, 0)
    assert len({r[Requests.replica] for r in requests}) >= 2, "both replicas answered"
    told = [r for r in rows(Replicas) if r[Replicas.engine_running] is not None]
    assert max(r[Replicas.engine_running] for r in told) > 0, "the engines' own figures are in the table"
    assert all(0 <= r[Replicas.kv_cache_usage] <= 1 for r in told)
    (engine,) = found.manifest.measured["engines"]
    assert "0.32" in json.dumps(engine) and "bfloat16" in json.dumps(engine)
