"""What may be searched: values as a scenario writes them, and errors for the person who typed them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from raybench.policies import POLICIES, make
from raybench.scenario import Scenario, load
from raybench.tuning.ranges import default_ranges, maxima
from raybench.tuning.scenario import confirming
from raybench.tuning.settings import SettingsError, grid, read_vary

DEMO = Path(__file__).parent.parent / "scenarios" / "demo.yaml"

BODY = """
name: small
deployment:
  model: m
  slots_per_replica: 4
  autoscaling: {autoscaling}
load:
  stages: [{{duration: 1m, arrival: {{process: constant, interval: 1s}}}}]
  request: {{prompt: hello}}
objectives: {{ttft_p99: 2s}}
"""


def scenario(path: Path, autoscaling: str = "{}") -> tuple[Scenario, dict[str, Any]]:
    file = path / "small.yaml"
    file.write_text(BODY.format(autoscaling=autoscaling), encoding="utf-8")
    return load(file), yaml.safe_load(autoscaling)


def test_every_combination_is_there_once_and_the_own_one_is_first(tmp_path: Path) -> None:
    loaded, written = scenario(tmp_path, "{scale_up_queue_depth: 5, autoscaling_window: 30s}")
    vary = read_vary(["scale_up_queue_depth=2,5,8", "autoscaling_window=10s,30s", "min_replicas=0,1"])
    found = grid(loaded, written, vary=vary)
    got = [
        (s.autoscaling.scale_up_queue_depth, s.autoscaling.autoscaling_window, s.autoscaling.min_replicas)
        for s in found.settings
    ]
    assert got[0] == (5, 30, 0)
    assert sorted(got) == sorted(itertools.product((2, 5, 8), (10, 30), (0, 1)))
    assert dict(found.settings[0].values) == {
        "scale_up_queue_depth": 5, "autoscaling_window": "30s", "min_replicas": 0,
    }  # fmt: skip
    changed = [sum(a != b for a, b in zip(one, got[0], strict=True)) for one in got]
    assert changed == sorted(changed)


def test_combinations_that_contradict_themselves_are_left_out_and_counted(tmp_path: Path) -> None:
    loaded, written = scenario(tmp_path)
    vary = read_vary(["scale_up_queue_depth=2,8", "scale_down_queue_depth=1,4"])
    found = grid(loaded, written, vary=vary)
    assert found.left_out == 1 and "below scale_up_queue_depth, which is 2" in found.why_left_out
    assert len(found.settings) == 1 + 3


def test_options_of_a_policy_go_where_the_policy_looks_for_them(tmp_path: Path) -> None:
    loaded, written = scenario(tmp_path, "{max_replicas: 3}")
    vary = read_vary(["target_average_value=4,8", "cooldown_period=30s", "max_replicas=2,3"])
    found = grid(loaded, written, ["queue_depth", "hpa"], vary)
    hpa = [s for s in found.settings if s.policy == "hpa"]
    assert len(hpa) == 4 and len(found.settings) == 4 + 2  # thresholds of queue_depth were not named
    for s in hpa:
        assert s.written["policy_options"] == s.autoscaling.policy_options
        assert s.autoscaling.policy_options["cooldown_period"] == "30s"
        make("hpa", s.autoscaling)


def test_options_of_the_scenarios_own_policy_stay_and_do_not_go_to_another(tmp_path: Path) -> None:
    own = "{policy: hpa, policy_options: {target_average_value: 6, sync_period: 5s}}"
    loaded, written = scenario(tmp_path, own)
    found = grid(loaded, written, ["hpa", "target_ongoing"], read_vary(["target_average_value=3"]))
    assert found.settings[0].written == written
    by_policy = {p: [s for s in found.settings if s.policy == p] for p in ("hpa", "target_ongoing")}
    assert [s.autoscaling.policy_options for s in by_policy["hpa"]] == [
        {"target_average_value": 6, "sync_period": "5s"},
        {"target_average_value": 3, "sync_period": "5s"},
    ]
    assert len(by_policy["target_ongoing"]) == 27  # its own ranges, as none of its settings was named
    assert all("sync_period" not in s.autoscaling.policy_options for s in by_policy["target_ongoing"])


def test_without_vary_every_policy_of_the_laboratory_has_ranges_that_it_takes() -> None:
    loaded = load(DEMO)
    written = yaml.safe_load(DEMO.read_text(encoding="utf-8"))["deployment"]["autoscaling"]
    for policy in POLICIES:
        found = grid(loaded, written, [policy])
        assert found.left_out == 0 and len(found.settings) >= 3
        assert any(s.autoscaling == loaded.deployment.autoscaling for s in found.settings)  # type: ignore[union-attr]


def test_defaults_are_around_the_scenarios_own_and_never_above_its_maximum(tmp_path: Path) -> None:
    loaded, _ = scenario(tmp_path, "{max_replicas: 12, min_replicas: 2}")
    assert loaded.deployment is not None
    ranges = default_ranges("queue_depth", loaded.deployment.autoscaling, 4)
    assert ranges == {
        "scale_up_queue_depth": [2.5, 5, 10],
        "scale_down_queue_depth": [0, 1, 2],
        "autoscaling_window": ["15s", "30s", "60s", "120s"],
        "min_replicas": [0, 1, 2],
        "max_replicas": [3, 6, 9, 12],
    }
    assert maxima(1) == [1] and maxima(4) == [1, 2, 3, 4] and maxima(6)[-1] == 6


@pytest.mark.parametrize(
    ("policies", "vary", "said"),
    [
        ([], ["foo=1"], "--vary foo: queue_depth has no such setting; there is autoscaling_window, max"),
        ([], ["max_replica=1"], "did you mean max_replicas?"),
        ([], ["scale_up_queue_depth=x"], "--vary scale_up_queue_depth: value 'x': should be a number"),
        ([], ["autoscaling_window=10"], "value 10: a duration needs a unit, such as 10s or 10m"),
        ([], ["min_replicas=0,5"], "value 5: min_replicas should be at most max_replicas, which is 2"),
        ([], ["max_replicas=0"], "value 0: should be more than 0"),
        ([], ["target_average_value=4"], "queue_depth has no such setting; hpa has: --policy hpa"),
        (["hpa"], ["target_average_value=-1"], "value -1: target_average_value: -1; it should be above 0"),
        (["hpa"], ["cooldown_period=5"], "value 5: should be a duration with its unit"),
        (["hpaa"], [], "--policy hpaa: no policy 'hpaa'; there is fixed, hpa"),
        (["nowhere:Nobody"], [], "--policy nowhere:Nobody: "),
        ([], ["policy=hpa"], "--vary policy: cannot be varied: --policy NAME"),
        ([], ["policy_options={a: 1}"], "name the option itself"),
        ([], ["depth_source=engine"], "--vary depth_source: cannot be varied"),
        ([], ["autoscaling_window"], "KEY=VALUE,VALUE,… is right"),
        ([], ["=5"], "KEY=VALUE,VALUE,… is right"),
        ([], ["min_replicas=0", "min_replicas=1"], "min_replicas is given twice"),
        ([], ["min_replicas=0,,1"], "not readable"),
        ([], ["min_replicas=~"], "a value is missing"),
        ([], ["scale_up_queue_depth=" + ",".join(map(str, range(2, 5004)))], "5,002 settings; at most 5,000"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(
    tmp_path: Path, policies: list[str], vary: list[str], said: str
) -> None:
    loaded, written = scenario(tmp_path)
    with pytest.raises(SettingsError) as failed:
        grid(loaded, written, policies, read_vary(vary))
    assert said in str(failed.value) and "\n" not in str(failed.value)


def test_a_class_of_ones_own_can_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from raybench.policies import Decision\n"
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def __init__(self, max_replicas: int, patience_s: float = 3.0): self.n = max_replicas\n"
        "    def decide(self, seen): return Decision(self.n)\n"
        "    def next_decision_s(self, seen): return seen.now_s\n"
    )
    (tmp_path / "tuned_policy.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded, written = scenario(tmp_path)
    found = grid(loaded, written, ["tuned_policy:Mine"], read_vary(["patience=1s,2s", "max_replicas=1,2"]))
    assert len(found.settings) == 1 + 4
    with pytest.raises(SettingsError, match="did you mean patience"):
        grid(loaded, written, ["tuned_policy:Mine"], read_vary(["patiense=1s"]))


# --- the scenario that would confirm it -------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_the_confirming_scenario_loads_and_is_scaled_as_the_setting_says(tmp_path: Path, policy: str) -> None:
    loaded = load(DEMO)
    document = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    setting = grid(loaded, document["deployment"]["autoscaling"], [policy]).settings[-1]
    file = tmp_path / "tuned.yaml"
    file.write_text(confirming(document, loaded, setting, ["why: so", "and"]), encoding="utf-8")
    again = load(file)
    assert file.read_text(encoding="utf-8").startswith("# why: so\n# and\nname: demo-tuned\n")
    assert again.deployment is not None and again.deployment.autoscaling == setting.autoscaling
    for key in ("seed", "load", "objectives", "valid", "serving"):
        assert getattr(again, key) == getattr(loaded, key)
    assert again.deployment.model_copy(update={"autoscaling": None}) == loaded.deployment.model_copy(  # type: ignore[union-attr]
        update={"autoscaling": None}
    )


def test_data_files_are_found_from_another_directory(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "why?"}\n', encoding="utf-8")
    text = BODY.format(autoscaling="{}").replace("prompt: hello", "prompts: prompts.jsonl")
    file = tmp_path / "small.yaml"
    file.write_text(text, encoding="utf-8")
    loaded, document = load(file), yaml.safe_load(text)
    setting = grid(loaded, {}).settings[-1]
    elsewhere = tmp_path / "sub"
    elsewhere.mkdir()
    (elsewhere / "tuned.yaml").write_text(
        confirming(document, loaded, setting, elsewhere=True), encoding="utf-8"
    )
    assert load(elsewhere / "tuned.yaml").load == loaded.load
    beside = confirming(document, loaded, setting)
    assert yaml.safe_load(beside)["load"]["request"]["prompts"] == "prompts.jsonl"


def test_a_long_name_stays_a_name(tmp_path: Path) -> None:
    loaded, written = scenario(tmp_path)
    long = loaded.model_copy(update={"name": "n" * 80})
    document = yaml.safe_load(BODY.format(autoscaling="{}"))
    made = yaml.safe_load(confirming(document, long, grid(loaded, written).settings[0]))
    assert made["name"] == "n" * 74 + "-tuned"
