"""What a scenario can say to a policy, and what it is told when the policy has nothing of the kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from raybench.cli.main import main
from raybench.policies import Decision, Hpa, Observation, OptionError, TargetOngoing, make
from raybench.scenario import ScenarioError, load
from raybench.scenario.models import Autoscaling
from raybench.serving.app import Arguments

DOCS = Path(__file__).parents[1] / "docs"


class Patient:
    """A policy of somebody else's."""

    name = "patient"

    def __init__(self, max_replicas: int, patience_s: float, mood: str = "calm") -> None:
        if mood == "angry":
            raise RuntimeError("not today")
        self.max_replicas, self.patience_s, self.mood = max_replicas, patience_s, mood

    def decide(self, seen: Observation) -> Decision:
        return Decision(self.max_replicas, "because")

    def next_decision_s(self, seen: Observation) -> float:
        return seen.now_s


class Anything(Patient):
    def __init__(self, **given: Any) -> None:
        self.given = given


PATIENT = f"{__name__}:Patient"


def made(policy: str, **options: Any) -> Any:
    return make(policy, Autoscaling(policy=policy, max_replicas=4, policy_options=options))


def test_options_reach_the_constructor_durations_in_seconds() -> None:
    policy = made("target_ongoing", target_ongoing_requests=8, upscale_delay="5s", downscale_delay="1m30s")
    assert isinstance(policy, TargetOngoing)
    assert policy.target_ongoing_requests == 8
    assert (policy.upscale_delay_s, policy.downscale_delay_s) == (5.0, 90.0)
    own = made(PATIENT, patience="500ms", mood="bright")
    assert (own.patience_s, own.mood, own.max_replicas) == (0.5, "bright", 4)


def test_the_parameter_by_its_own_name_is_taken_as_it_is() -> None:
    assert made("target_ongoing", upscale_delay_s=7).upscale_delay_s == 7
    assert made("target_ongoing", upscale_delay=0).upscale_delay_s == 0
    policies = [{"type": "pods", "value": 1, "period_s": 15}]
    assert isinstance(made("hpa", scale_up_policies=policies, scale_up_stabilization="1s"), Hpa)


def test_a_constructor_that_takes_anything_gets_everything() -> None:
    given = made(f"{__name__}:Anything", whatever=3).given
    assert given["whatever"] == 3
    assert (given["max_replicas"], given["autoscaling_window_s"]) == (4, 60.0)
    assert "policy_options" not in given


@pytest.mark.parametrize(
    ("options", "option", "right"),
    [
        ({"upscale_dealy": "5s"}, "upscale_dealy", "did you mean upscale_delay?"),
        ({"zzz": 1}, "zzz", "there is downscale_delay, downscale_to_zero_delay, downscaling_factor"),
        ({"upscale_delay": 5}, "upscale_delay", "a duration with its unit"),
        ({"upscale_delay": "soon"}, "upscale_delay", "a duration with its unit"),
        ({"max_replicas": 9}, "max_replicas", "deployment.autoscaling.max_replicas"),
        ({"autoscaling_window": "9s"}, "autoscaling_window", "deployment.autoscaling.autoscaling_window"),
    ],
)
def test_an_option_that_is_none(options: dict[str, Any], option: str, right: str) -> None:
    with pytest.raises(OptionError) as told:
        made("target_ongoing", **options)
    assert told.value.option == option
    assert right in told.value.right


def test_a_parameter_that_nobody_gives_is_asked_for() -> None:
    with pytest.raises(ValueError, match="asks for patience_s"):
        made(PATIENT)


def test_a_word_where_a_number_belongs() -> None:
    with pytest.raises(ValueError, match="cannot be made of these values"):
        made("target_ongoing", target_ongoing_requests="many")


# --- in a scenario -------------------------------------------------------------------------------------


def scenario(path: Path, policy: str, options: dict[str, Any]) -> Path:
    body = {
        "name": "x",
        "deployment": {"model": "m", "autoscaling": {"policy": policy, "policy_options": options}},
        "load": {
            "stages": [{"duration": "10s", "arrival": {"process": "constant", "rate": "1/s"}}],
            "request": {"prompt": "hello"},
        },
    }
    file = path / "scenario.yaml"
    file.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    return file


def mistakes(file: Path) -> str:
    with pytest.raises(ScenarioError) as told:
        load(file)
    return str(told.value)


def test_a_scenario_with_options(tmp_path: Path) -> None:
    checked = load(scenario(tmp_path, "knative", {"target_concurrency": 8, "stable_window": "30s"}))
    assert checked.deployment is not None
    policy = make("knative", checked.deployment.autoscaling)
    assert policy.stable_window_s == 30.0  # type: ignore[attr-defined]
    # As it is handed to the application: written out and read again.
    again = Arguments.model_validate({"deployment": checked.deployment.model_dump()})
    assert again.deployment.autoscaling == checked.deployment.autoscaling


@pytest.mark.parametrize(
    ("policy", "options", "told"),
    [
        (
            "hpa",
            {"tolerence": 0.2},
            ":7: deployment.autoscaling.policy_options.tolerence: value 0.2: the policy",
        ),
        (
            "hpa",
            {"tolerance": -1},
            ":6: deployment.autoscaling.policy_options: value {tolerance}: tolerance: -1",
        ),
        (
            "hpa",
            {"sync_period": 15},
            "policy_options.sync_period: value 15: should be a duration with its unit",
        ),
        (
            "fixed",
            {"replicas": 7},
            "policy_options: value {replicas}: replicas: 7; it should lie between 1 and 2",
        ),
        (PATIENT, {"patience": "1s", "mood": "angry"}, "policy_options: value {patience, mood}: not today"),
    ],
)
def test_the_check_says_what_the_policy_would(
    tmp_path: Path, policy: str, options: dict[str, Any], told: str
) -> None:
    assert told in mistakes(scenario(tmp_path, policy, options))


def test_a_policy_that_is_not_here_is_left_to_where_it_runs(tmp_path: Path) -> None:
    assert load(scenario(tmp_path, "not_here:Policy", {"x": 1})).deployment is not None


def test_the_documented_options_are_options(tmp_path: Path) -> None:
    page = (DOCS / "policies.md").read_text(encoding="utf-8")
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    stated = example["deployment"]["autoscaling"]
    checked = load(scenario(tmp_path, stated["policy"], stated["policy_options"]))
    assert checked.deployment is not None
    policy = make("target_ongoing", checked.deployment.autoscaling)
    assert (policy.upscale_delay_s, policy.downscale_delay_s) == (5.0, 120.0)  # type: ignore[attr-defined]


def test_another_policy_for_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario's options go with its own policy; named again, it keeps them."""
    import raybench.fleet.cluster as cluster
    import raybench.fleet.conductor as conductor

    seen = []

    class Stopped(Exception):
        pass

    def stop(checked: Any, *_: Any, **__: Any) -> None:
        seen.append(checked.deployment.autoscaling)
        raise cluster.ClusterError("seen enough")

    class Attached:
        def __enter__(self) -> bool:
            return True

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(cluster, "attached", lambda address: Attached())
    monkeypatch.setattr(conductor, "Conductor", stop)
    file = scenario(tmp_path, "hpa", {"tolerance": 0.3})
    for number, policy in enumerate(("fixed", "hpa", "no_such")):
        arguments = ["run", str(file), "--policy", policy, "-o", str(tmp_path / f"out{number}")]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == (2 if policy == "no_such" else 1), result.output
    assert [(a.policy, a.policy_options) for a in seen] == [("fixed", {}), ("hpa", {"tolerance": 0.3})]
    assert "override: deployment.autoscaling.policy: value 'no_such'" in result.output
