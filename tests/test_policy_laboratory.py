"""What every policy of the laboratory promises to its host, whatever it decides."""

from __future__ import annotations

import copy
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.policies import POLICIES, Observation, make
from raybench.scenario.models import Autoscaling

PAGE = Path(__file__).parents[1] / "docs" / "policy-laboratory.md"
BOUNDS = Autoscaling(min_replicas=1, max_replicas=4)

looks = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.125, 0.125, 1.0, 2.0, 70.0]),  # seconds since the last look: some are gaps
        st.floats(0, 100),  # waiting
        st.floats(0, 100),  # serving
        st.integers(0, 6),  # available
        st.integers(0, 3),  # starting
        st.one_of(st.none(), st.integers(0, 6)),  # a target that somebody else set
        st.booleans(),  # unbroken
    ),
    max_size=40,
)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=30, deadline=None)
@given(looks=looks)
def test_whatever_is_seen_the_bounds_hold_and_changes_have_reasons(
    name: str, looks: list[tuple[float, float, float, int, int, int | None, bool]]
) -> None:
    policy = make(name, BOUNDS)
    assert policy.name == name
    now_s, target = 0.0, 1
    for seconds, waiting, serving, available, starting, foreign, unbroken in looks:
        now_s += seconds
        target = target if foreign is None else foreign
        seen = Observation(now_s, waiting, serving, available, starting, target, unbroken=unbroken)
        asked = copy.deepcopy(policy)
        assert asked.next_decision_s(seen) >= now_s
        decision = policy.decide(seen)
        assert asked.decide(seen) == decision  # asking for the next time changes nothing
        assert 1 <= decision.target <= 4
        assert bool(decision.reason) == (decision.target != target)
        target = decision.target


@pytest.mark.parametrize("name", POLICIES)
def test_without_load_and_with_the_least_replicas_nothing_ever_happens(name: str) -> None:
    policy = make(name, Autoscaling(min_replicas=1, max_replicas=1))
    for tick in range(10_000):
        assert policy.decide(Observation(tick / 8, 0, 0, 1, 0, 1)).target == 1


def test_each_works_where_raybench_is_not_installed() -> None:
    """As Serve's controller gets them: pickled by value, in a process that cannot import raybench."""
    pytest.importorskip("ray")
    from raybench.serving.scaler import pack

    packed = {name: pack(make(name, Autoscaling(min_replicas=0, max_replicas=4))) for name in POLICIES}
    elsewhere = """
import base64, json, pickle, sys
sys.modules["raybench"] = None
import ray.cloudpickle
targets = {}
for name, text in json.load(sys.stdin).items():
    policy, Observation = pickle.loads(base64.b64decode(text))
    target = 1
    for tick in range(2000):
        target = policy.decide(Observation(tick / 10, 60.0, 90.0, target, 0, target)).target
    assert policy.next_decision_s(Observation(200.0, 60.0, 90.0, target, 0, target)) >= 200
    targets[name] = target
print(json.dumps(targets))
"""
    done = subprocess.run(
        [sys.executable, "-c", elsewhere],
        input=json.dumps(packed),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 150 requests: more than any of them lets four replicas have, but Knative's 70 each.
    assert json.loads(done.stdout) == {**dict.fromkeys(POLICIES, 4), "knative": 3}


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "queue_depth"])
def test_the_page_lists_every_parameter_with_its_default(name: str) -> None:
    section = PAGE.read_text().split(f"\n## `{name}`")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", section, re.MULTILINE))
    parameters = inspect.signature(POLICIES[name]).parameters
    expected = {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in ("min_replicas", "max_replicas")
    }
    assert list(listed) == list(expected)
    for key, default in expected.items():
        if default is None:
            assert not listed[key].replace(".", "").isdigit()
        elif isinstance(default, tuple):
            words = [f"{limit['value']}{'%' if limit['type'] == 'percent' else ''}" for limit in default]
            assert listed[key] == f"{' or '.join(words)} in 15 s"
        elif isinstance(default, str):
            assert listed[key] == f"`{default}`"
        else:
            assert float(listed[key]) == default
