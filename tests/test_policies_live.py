"""Every policy of the laboratory, and somebody's own, deciding live: in a Serve that another job had started.

One Ray, one crowd for all: six applications side by side, each with its own policy, monitor and run.
Waiting is always for something to happen, with a limit far beyond what it takes: nothing here measures speed.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import ray
import runs

from raybench.analysis import summarise
from raybench.fleet.monitor import start_monitor
from raybench.rundir import Run, create, open_run
from raybench.scenario.models import Scenario
from raybench.schema import EventKind, Events
from raybench.serving.deployer import DEPLOYMENT_NAME, deploy, status
from raybench.serving.ports import free_port

pytestmark = pytest.mark.timeout(240)

LIMIT_S = 90.0
MODEL = "m"

OWN = '''
from raybench.policies import Decision

HALF = 0.5  # a global of the module: it has to travel too

class Eager:
    """Everything at once, as soon as more than three requests are there."""

    name = "eager"

    def __init__(self, max_replicas):
        self.most = max_replicas

    def decide(self, seen):
        requests = seen.waiting + seen.serving
        if requests <= 3 or seen.target == self.most:
            return Decision(seen.target)
        return Decision(self.most, f"{requests:.3g} requests are more than three", HALF)

    def next_decision_s(self, seen):
        return seen.now_s
'''

POLICIES: dict[str, tuple[str, dict[str, Any], str, float | None]] = {
    # application: policy, its options, the reason of a step up, the window behind it
    "depth": ("queue_depth", {}, r"queue depth \S+ >= 3 through 1 s", 1.0),
    "ongoing": (
        "target_ongoing",
        {"target_ongoing_requests": 2, "upscale_delay": "500ms", "look_back_period": "1s"},
        r"\S+ ongoing requests over 1 available, 2 a replica: \d+ wanted, not 1, for 0.5 s",
        0.5,
    ),
    "hpa": (
        "hpa",
        {"target_average_value": 3, "sync_period": "500ms"},
        r"\S+ requests ongoing, 3 a replica: \d+ proposed",
        0.0,
    ),
    "knative": (
        "knative",
        {"target_concurrency": 2, "stable_window": "10s", "tick_interval": "500ms"},
        r"panic: \S+ requests over 1 s, 1.4 a replica: \d+ wanted",
        1.0,
    ),
    "fixed": ("fixed", {}, r"a fixed number of replicas, 2", None),
    "own": ("own_policies:Eager", {}, r"\S+ requests are more than three", 0.5),
}
NAMES = {"own": "eager"} | {app: policy for app, (policy, *_) in POLICIES.items() if app != "own"}


def scenario(app: str) -> Scenario:
    policy, options, *_ = POLICIES[app]
    return Scenario.model_validate(
        {
            "name": app,
            "deployment": {
                "engine": "emulated",
                "model": MODEL,
                "slots_per_replica": 2,
                "emulated": {"preset": "demo", "startup": 0.2, "output_tokens": {"mean": 20}},
                "autoscaling": {
                    "policy": policy,
                    "policy_options": options,
                    "scale_up_queue_depth": 3,
                    "autoscaling_window": 1.0,
                    "max_replicas": 2,
                },
                "drain": 1.0,
            },
            "serving": {"application": app, "route": f"/{app}"},
            "load": {
                "stages": [{"duration": 60.0, "arrival": {"process": "constant", "interval": 1.0}}],
                "request": {"prompt": "hello", "timeout": 60.0},
            },
        }
    )


SERVE = """
import sys, ray
ray.init(address=sys.argv[1], namespace="serve", log_to_driver=False, logging_level="ERROR")
from ray import serve
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
"""


@pytest.fixture(scope="module")
def own_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that only this process can import: neither the controller nor any worker has it."""
    directory = tmp_path_factory.mktemp("own")
    (directory / "own_policies.py").write_text(OWN)
    sys.path.insert(0, str(directory))
    yield
    sys.path.remove(str(directory))
    sys.modules.pop("own_policies", None)


@pytest.fixture(scope="module")
def told(ray_cluster: str, own_module: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Deploys all, and sends a crowd at all until each has two replicas: what was told of each."""
    command = [sys.executable, "-I", "-c", SERVE, ray_cluster, str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    paths = {app: tmp_path_factory.mktemp("run") / app for app in POLICIES}
    monitors, urls = {}, {}
    t0_ns = time.monotonic_ns()
    for app, path in paths.items():
        create(path, runs.manifest(scenario=scenario(app).model_dump(mode="json")))
        monitors[app] = start_monitor(str(path), app, DEPLOYMENT_NAME)
        ray.get(monitors[app].start.remote(t0_ns))
        urls[app] = deploy(scenario(app)).url
    asyncio.run(crowd(urls))
    for app in POLICIES:  # the applications go with the cluster
        assert ray.get(monitors[app].stop.remote()) == []
        ray.kill(monitors[app])
    return {app: open_run(path) for app, path in paths.items()}


async def crowd(urls: dict[str, str]) -> None:
    """Eight callers for each, until each has its second replica (and with it, its decision)."""
    enough = dict.fromkeys(urls, False)

    async def caller(client: aiohttp.ClientSession, app: str) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        while not enough[app]:
            async with client.post(f"{urls[app]}/v1/chat/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=2 * LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        callers = [asyncio.create_task(caller(client, app)) for app in urls for _ in range(8)]
        deadline = time.monotonic() + LIMIT_S
        while not all(enough.values()):
            assert time.monotonic() < deadline, (
                f"no second replica: {[a for a, y in enough.items() if not y]}"
            )
            await asyncio.sleep(0.5)
            for app in urls:
                seen = await asyncio.to_thread(status, app, count=False)
                enough[app] = enough[app] or (seen is not None and seen.target == 2)
        await asyncio.sleep(0.5)  # what was decided is on its way to the monitor
        await asyncio.gather(*callers)


def decisions(run: Run) -> list[dict[str, Any]]:
    import json

    columns = [Events.kind, Events.subject, Events.detail]
    rows = [row for batch in run.batches(Events, columns) for row in batch.to_pylist()]
    return [
        {"subject": r[Events.subject]} | json.loads(r[Events.detail])
        for r in rows
        if r[Events.kind] == EventKind.DECISION
    ]


@pytest.mark.parametrize("app", POLICIES)
def test_its_step_up_is_an_event_with_its_name_its_reason_and_its_window(
    told: dict[str, Run], app: str
) -> None:
    _, _, reason, window_s = POLICIES[app]
    found = decisions(told[app])
    assert found and {d["subject"] for d in found} == {NAMES[app]}
    up = next(d for d in found if d["to"] == 2)
    assert up["from"] == (0 if app == "fixed" else 1)
    assert re.match(reason, up["reason"]), up["reason"]
    assert up["window_s"] == window_s
    assert up["waiting"] + up["serving"] > 2 or app == "fixed"


@pytest.mark.parametrize("app", POLICIES)
def test_its_run_has_the_chain_of_the_step(told: dict[str, Run], app: str) -> None:
    """Threshold and window are links only where the tables hold what the policy decided by."""
    scaling = summarise(told[app]).scaling
    assert scaling is not None
    step, chain = next(
        (scaling.steps[c.step], c) for c in scaling.chains if scaling.steps[c.step].to_replicas == 2
    )
    assert step.by == "policy" and step.window_s == POLICIES[app][3]
    assert chain.up and len(chain.replicas) == (2 if app == "fixed" else 1)
    seen = {link.name: link.at_s is not None for link in chain.links}
    assert seen["decision"] and seen["replica starting"]
    assert seen["threshold crossed"] == seen["window elapsed"] == (app == "depth")
