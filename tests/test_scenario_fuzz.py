"""Whatever stands in a scenario, loading it ends in a Scenario or in a ScenarioError with lines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raybench.scenario import Scenario, ScenarioError, load

SCENARIOS = Path(__file__).parent.parent / "scenarios"
BASES = [yaml.safe_load((SCENARIOS / f"{name}.yaml").read_text()) for name in ("demo", "target-example")]
BASES[1]["load"] |= {"max_in_flight": 9}
BASES[1]["load"]["request"] |= {
    "shared_prefix": {"tokens": 9},
    "conversation": {"turns": 2, "think_time": "1s"},
}
BASES[1]["load"]["stages"].append(
    {"duration": "9s", "arrival": {"process": "steps", "rates": ["1/s", "0/s"], "each": "2s"}}
)

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**12),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=5),
    st.sampled_from(["60s", "-1s", "5/s", "99%", "1e99s", "fixed", "uniform", "trace", "é", "9" * 400 + "s"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["min", "max", "process", "distribution"]), st.integers(0, 3)),
)  # fmt: skip


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            found += places(data[key], (*at, key))
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_values(directory: Path, data: st.DataObject) -> None:
    scenario = copy.deepcopy(data.draw(st.sampled_from(BASES)))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(scenario)))
        inside = scenario
        for key in way:
            inside = inside[key]
        action = data.draw(st.sampled_from(["set", "remove", "rename"]))
        if action == "set":
            inside[last] = data.draw(VALUES)
        elif action == "remove" or isinstance(inside, list):
            del inside[last]
        else:
            inside[data.draw(st.text(max_size=4))] = inside.pop(last)
    path = directory / "s.yaml"
    path.write_text(yaml.safe_dump(scenario, allow_unicode=True), encoding="utf-8")
    try:
        loaded = load(path)
    except ScenarioError as error:
        assert all(line.startswith(str(path)) for line in str(error).splitlines()), str(error)
    else:
        assert Scenario.model_validate(loaded.model_dump(mode="json")) == loaded


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="abc:- \n{}[]&*!?|>'\"#%@,0159\t<é", max_size=60))
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError):
        load(path)
