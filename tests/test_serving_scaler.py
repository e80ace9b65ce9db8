"""The policy's adapter: what it makes of Serve's context, and that it works where raybench does not exist."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raybench.policies import POLICIES, Decision, Observation, QueueDepth, make
from raybench.scenario.models import Autoscaling
from raybench.serving import scaler
from raybench.serving.scaler import Scaler, pack


class Told:
    """A policy that says what it is told to, and keeps what it saw."""

    name = "told"

    def __init__(
        self, target: int = 1, reason: str = "", error: bool = False, window_s: float | None = None
    ) -> None:
        self.target, self.reason, self.error, self.window_s = target, reason, error, window_s
        self.seen: list[Observation] = []

    def decide(self, seen: Observation) -> Decision:
        self.seen.append(seen)
        if self.error:
            raise RuntimeError("the policy is broken")
        return Decision(self.target, self.reason, self.window_s)

    def next_decision_s(self, seen: Observation) -> float:
        return seen.now_s


def context(**given: Any) -> SimpleNamespace:
    figures: dict[str, Any] = {
        "target_num_replicas": 2,
        "current_num_replicas": 1,
        "total_num_requests": 7.5,
        "total_queued_requests": 5.0,
        "aggregated_metrics": {},
        "app_name": "raybench",
    }
    return SimpleNamespace(**(figures | given))


def scaler_of(policy: Told, **given: Any) -> Scaler:
    made = Scaler(pack(policy), **given)
    made._policy = policy  # the very object, to look into
    made._reporter = FakeReporter()  # type: ignore[assignment]
    return made


class FakeReporter:
    boot_id = "boot"

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, name: str, sample: dict[str, Any]) -> None:
        self.told.append((name, sample))


def test_the_policy_sees_serves_sums() -> None:
    policy = Told(target=2)
    made = scaler_of(policy)
    assert made(context()) == (2, {})
    seen = policy.seen[0]
    assert (seen.waiting, seen.serving, seen.available, seen.starting, seen.target) == (5.0, 2.5, 1, 1, 2)
    assert seen.queue_depth == 7.5


def test_the_engines_own_queue_counts_as_waiting_where_asked_for() -> None:
    policy = Told()
    made = scaler_of(policy, depth_source="engine")
    metrics = {"engine_waiting": {"a": 3.0, "b": 1.0}, "engine_running": {"a": 8.0, "b": 0.0}}
    made(context(aggregated_metrics=metrics, total_num_requests=17.0))
    assert (policy.seen[0].waiting, policy.seen[0].serving) == (9.0, 8.0)
    assert policy.seen[0].busy_replicas == 1


def test_busy_replicas_are_unknown_without_the_engines_figures() -> None:
    policy = Told()
    scaler_of(policy)(context())
    assert policy.seen[0].busy_replicas is None


def test_a_broken_policy_holds_the_target_and_complains_once(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[str] = []
    monkeypatch.setattr(scaler.logger, "exception", complaints.append)
    made = scaler_of(Told(error=True))
    assert [made(context()) for _ in range(3)] == [(2, {})] * 3
    assert len(complaints) == 1


def test_a_broken_context_holds_the_target() -> None:
    assert scaler_of(Told())(context(total_queued_requests="?")) == (2, {})


def test_every_tick_is_told_with_its_decision() -> None:
    class Replica:
        unique_id = "r1"

    made = scaler_of(Told(target=3, reason="deep", window_s=60.0))
    made(context(aggregated_metrics={"engine_waiting": {Replica(): 3.0}, "engine_running": {}}))
    made(context())
    (name, first), (_, second) = made._reporter.told  # type: ignore[attr-defined]
    assert name == "raybench-monitor:raybench"
    assert first["engine"] == {"r1": {"engine_waiting": 3.0}}
    assert "engine" not in second  # half a second has not passed
    told = {
        key: first[key] for key in ("policy", "waiting", "serving", "available", "starting", "queue_depth")
    }
    assert told == {
        "policy": "told",
        "waiting": 5.0,
        "serving": 2.5,
        "available": 1,
        "starting": 1,
        "queue_depth": 7.5,
    }
    assert (first["target_before"], first["target"], first["reason"], first["window_s"]) == (
        2,
        3,
        "deep",
        60.0,
    )
    assert first["boot_id"] == "boot" and first["mono_ns"] < second["mono_ns"]


# --- telling ------------------------------------------------------------------------------------------


class Clock:
    """Stands for the module's `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Actor:
    """Stands for the monitor's handle: answers when told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[dict[str, Any]], Future[None]]] = []
        self.observed = SimpleNamespace(remote=self._remote)

    def _remote(self, samples: list[dict[str, Any]]) -> Any:
        answer: Future[None] = Future()
        self.calls.append((samples, answer))
        return SimpleNamespace(future=lambda: answer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(scaler, "time", found)
    return found


def watched(monkeypatch: pytest.MonkeyPatch, actors: dict[str, Actor]) -> list[str]:
    """Ray's directory of actors, and who was asked for."""
    import ray

    asked = []

    def get_actor(name: str, namespace: str) -> Actor:
        asked.append(name)
        if name not in actors:
            raise ValueError(name)
        return actors[name]

    monkeypatch.setattr(ray, "get_actor", get_actor)
    return asked


def sample(number: int, reason: str = "") -> dict[str, Any]:
    return {"number": number, "reason": reason}


def test_samples_go_together_four_times_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor()
    watched(monkeypatch, {"m": actor})
    reporter = scaler._Reporter()
    for number in range(10):
        reporter.tell("m", sample(number))
        for _, answer in actor.calls:
            if not answer.done():
                answer.set_result(None)
        clock.now += 0.1
    assert [[s["number"] for s in samples] for samples, _ in actor.calls] == [
        [0],
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
    ]


def test_a_decision_goes_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor()
    watched(monkeypatch, {"m": actor})
    reporter = scaler._Reporter()
    reporter.tell("m", sample(0))
    actor.calls[0][1].set_result(None)
    clock.now += 0.01
    reporter.tell("m", sample(1, "deep"))
    assert len(actor.calls) == 2


def test_a_slow_monitor_gets_one_message_at_a_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor()
    watched(monkeypatch, {"m": actor})
    reporter = scaler._Reporter()
    for number in range(scaler.KEEP + 50):
        reporter.tell("m", sample(number))
        clock.now += 0.1
    assert len(actor.calls) == 1
    actor.calls[0][1].set_result(None)
    reporter.tell("m", sample(-1))
    assert len(actor.calls[1][0]) == scaler.KEEP  # the oldest were dropped, memory is bounded


def test_a_missing_monitor_is_looked_for_every_two_seconds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors: dict[str, Actor] = {}
    asked = watched(monkeypatch, actors)
    reporter = scaler._Reporter()
    for number in range(43):
        reporter.tell("m", sample(number))
        clock.now += 0.1
    assert len(asked) == 3
    actors["m"] = Actor()
    clock.now += 2.0
    reporter.tell("m", sample(43))
    assert len(actors["m"].calls[0][0]) == 44  # it hears what it missed


def test_a_dead_monitor_is_forgotten_and_found_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = {"m": Actor()}
    dead = actors["m"]
    watched(monkeypatch, actors)
    reporter = scaler._Reporter()
    reporter.tell("m", sample(0))
    dead.calls[0][1].set_exception(RuntimeError("actor died"))
    actors["m"] = Actor()
    for number in range(30):
        reporter.tell("m", sample(number))
        clock.now += 0.1
    assert len(dead.calls) == 1
    assert actors["m"].calls


# --- by value -----------------------------------------------------------------------------------------

ELSEWHERE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("raybench", "pydantic", "their_policy"):
            raise ImportError("there is no " + name + " here")

sys.meta_path.insert(0, Blocker())
import pickle
from types import SimpleNamespace
from ray import cloudpickle
for definition, kwargs in pickle.loads(open(sys.argv[1], "rb").read()):
    scaler = cloudpickle.loads(definition)(**kwargs)
    print([scaler(SimpleNamespace(target_num_replicas=1, current_num_replicas=1, total_num_requests=9.0,
        total_queued_requests=5.0, aggregated_metrics={}, app_name="x"))[0] for _ in range(2)])
assert not [name for name in sys.modules if name.split(".")[0] in ("raybench", "pydantic", "their_policy")]
"""

THEIRS = """
from raybench.policies import Decision

LIMIT = 3

class Theirs:
    name = "theirs"

    def decide(self, seen):
        return Decision(LIMIT, f"depth {seen.queue_depth}")
"""


def as_serve_pickles_it(policy: Any) -> tuple[bytes, dict[str, Any]]:
    from ray.serve.config import AutoscalingPolicy

    kwargs = {"policy": pack(policy), "depth_source": "serve"}
    made = AutoscalingPolicy(policy_function=Scaler, policy_kwargs=kwargs)
    return made.get_serialized_policy_def(), kwargs


def test_policies_decide_in_a_controller_that_has_no_raybench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, all of them, and one from a module that the controller has not either. Each decides twice."""
    (tmp_path / "their_policy.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs = importlib.import_module("their_policy").Theirs()
    pickled = tmp_path / "policies.pkl"
    quick = QueueDepth(autoscaling_window_s=0.0)
    others = [make(name, Autoscaling()) for name in POLICIES]
    pickled.write_bytes(pickle.dumps([as_serve_pickles_it(policy) for policy in (quick, theirs, *others)]))
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(pickled)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    targets = [json.loads(line) for line in done.stdout.splitlines()]
    assert targets[:2] == [[2, 2], [3, 3]]
    assert len(targets) == 2 + len(POLICIES)


def test_packing_leaves_no_module_registered() -> None:
    from ray import cloudpickle

    before = set(cloudpickle.list_registry_pickle_by_value())
    pack(QueueDepth())
    assert set(cloudpickle.list_registry_pickle_by_value()) == before
