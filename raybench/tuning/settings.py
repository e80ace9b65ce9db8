"""What tuning may try: every combination of the values asked for, or of a few around the scenario's own.

Values are kept as they are written in a scenario (`10s`, `0.5`), since they end up in one.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from raybench.policies import POLICIES, OptionError, Parameters, make, parameters
from raybench.scenario import Autoscaling, Scenario
from raybench.scenario.units import WRITTEN
from raybench.scenario.words import right_for, shown
from raybench.tuning.ranges import BOUNDS, Ranges, default_ranges, written_value

MOST_SETTINGS = 5_000
"""Settings in one search. Each is simulated at least once."""

_NOT_VARIED = {
    "policy": "--policy NAME searches another policy",
    "policy_options": "name the option itself, such as --vary target_average_value=4,8",
    "depth_source": "the simulator counts as Serve does, whatever it says",
}


class SettingsError(ValueError):
    """What cannot be searched, and what would be right. One line."""


@dataclass(frozen=True)
class Setting:
    """One way to scale the deployment. `written` is its `autoscaling` section as a scenario has it; `values`
    are those of its settings that the search varies, in the order of the table.
    """

    autoscaling: Autoscaling
    written: dict[str, Any]
    values: tuple[tuple[str, Any], ...]

    @property
    def policy(self) -> str:
        return self.autoscaling.policy


class Grid(NamedTuple):
    """What is searched. The first setting is the scenario's own."""

    settings: tuple[Setting, ...]
    ranges: dict[str, Ranges]  # by policy
    left_out: int  # combinations that contradict themselves
    why_left_out: str  # of the first of them


class _Refused(NamedTuple):
    key: str  # at fault, or "" where nothing says so
    values: dict[str, Any]
    right: str


def read_vary(texts: Sequence[str]) -> Ranges:
    """`KEY=VALUE,VALUE,…` of each `--vary` as values of YAML. Raises SettingsError."""
    found: Ranges = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not key or not values:
            raise SettingsError(
                f"--vary {text}: KEY=VALUE,VALUE,… is right, such as autoscaling_window=10s,30s,60s"
            )
        if key in found:
            raise SettingsError(f"--vary {text}: {key} is given twice; all of its values go into one --vary")
        try:
            read = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            raise SettingsError(
                f"--vary {text}: not readable; values are as in a scenario, with commas between them"
            ) from None
        if any(value is None for value in read):
            raise SettingsError(f"--vary {text}: a value is missing between the commas")
        found[key] = [value for i, value in enumerate(read) if value not in read[:i]]
    return found


def grid(
    scenario: Scenario, written: Mapping[str, Any], policies: Sequence[str] = (), vary: Ranges | None = None
) -> Grid:
    """Every setting to try. `written`: the scenario's autoscaling section as it stands in its file.
    No `policies`: the scenario's own. No `vary`: a few values around the scenario's. Raises SettingsError.
    """
    assert scenario.deployment is not None
    own, vary = scenario.deployment.autoscaling, vary or {}
    chosen = tuple(dict.fromkeys(policies)) or (own.policy,)
    taken = {policy: _parameters(policy) for policy in chosen}
    _known(vary, taken)
    slots = scenario.deployment.slots_per_replica
    ranges = {policy: _ranges(own, slots, policy, taken[policy], vary) for policy in chosen}
    _countable(ranges)
    made: dict[str, tuple[Autoscaling, dict[str, Any]]] = {}
    accepted: list[dict[str, Any]] = []
    refused: list[_Refused] = []
    for policy, values in _combinations(ranges):
        section = _section(written, own.policy, policy, values)
        found = _checked(section)
        if isinstance(found, Autoscaling):
            made.setdefault(found.model_dump_json(), (found, section))
            accepted.append(values)
        else:
            refused.append(_Refused(found[0], values, found[1]))
    for key, tried in vary.items():
        _usable(key, tried, accepted, refused)
    if not made:
        raise SettingsError(f"--vary: no combination is a setting: {refused[0].right}")
    made.pop(own.model_dump_json(), None)
    first, *others = (
        Setting(a, section, _values(a, section, ranges.get(a.policy, {})))
        for a, section in [(own, dict(written)), *made.values()]
    )
    # Of settings that do the same, the one with the least changed comes first, and is the one named.
    others.sort(key=lambda s: sum(pair not in first.values for pair in s.values))
    return Grid(
        (first, *others),
        ranges,
        len(refused),
        refused[0].right if refused else "",
    )


def _parameters(policy: str) -> Parameters:
    try:
        return parameters(policy, Autoscaling)
    except ValueError as error:
        raise SettingsError(f"--policy {policy}: {error}") from None


def _known(vary: Ranges, taken: Mapping[str, Parameters]) -> None:
    """That every key belongs to one of the policies that are searched."""
    for key in vary:
        if key in _NOT_VARIED:
            raise SettingsError(f"--vary {key}: cannot be varied: {_NOT_VARIED[key]}")
        if any(_applies(key, parameters) for parameters in taken.values()):
            continue
        names = " or ".join(taken)
        others = [name for name in POLICIES if _applies(key, parameters(name, Autoscaling))]
        if others:
            raise SettingsError(
                f"--vary {key}: {names} has no such setting; {' and '.join(others)} has: --policy {others[0]}"
            )
        known = sorted({k for p in taken.values() for k in (*p.settings, *p.options)} - _NOT_VARIED.keys())
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        raise SettingsError(f"--vary {key}: {names} has no such setting; {hint}")


def _applies(key: str, policy: Parameters) -> bool:
    return key in policy.settings or key in policy.options or policy.any_option


def _ranges(own: Autoscaling, slots: int, policy: str, taken: Parameters, vary: Ranges) -> Ranges:
    """What `vary` names for this policy. What it does not name stays as in the scenario; but a policy that is
    not the scenario's has nothing there, so that it is searched around defaults unless something is named.
    """
    asked = {key: values for key, values in vary.items() if _applies(key, taken)}
    if not vary:
        return default_ranges(policy, own, slots)
    if policy != own.policy and not asked.keys() - set(BOUNDS):
        guessed = default_ranges(policy, own, slots)
        return {key: values for key, values in guessed.items() if key not in BOUNDS} | asked
    return asked


def _countable(ranges: Mapping[str, Ranges]) -> None:
    sizes = [[len(values) for values in of.values()] or [1] for of in ranges.values()]
    many = sum(_product(size) for size in sizes)
    if many > MOST_SETTINGS:
        parts = " + ".join(" x ".join(map(str, size)) for size in sizes)
        raise SettingsError(
            f"--vary: {parts} are {many:,} settings; at most {MOST_SETTINGS:,} are searched: "
            "name fewer values"
        )


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _combinations(ranges: Mapping[str, Ranges]) -> Iterator[tuple[str, dict[str, Any]]]:
    for policy, of in ranges.items():
        for values in itertools.product(*of.values()):
            yield policy, dict(zip(of, values, strict=True))


def _section(
    written: Mapping[str, Any], own_policy: str, policy: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The scenario's own section with these values in it. Options stay with their own policy."""
    made = dict(written)
    options = dict(made.pop("policy_options", None) or {})
    if policy != own_policy:
        made, options = {"policy": policy, **{k: v for k, v in made.items() if k != "policy"}}, {}
    for key, value in values.items():
        (made if key in Autoscaling.model_fields else options)[key] = value
    return made | ({"policy_options": options} if options else {})


def _checked(section: Mapping[str, Any]) -> Autoscaling | tuple[str, str]:
    """The section as the scenario's own check has it; or the key at fault, and what would be right."""
    try:
        found = Autoscaling.model_validate(section, context={WRITTEN: True})
    except ValidationError as error:
        one = error.errors(include_url=False)[0]
        if one["type"] == "mistakes":
            mistake = one["ctx"]["mistakes"][0]
            return str(mistake.key[0]), f"{mistake.key[0]} {mistake.right}"
        place = ("deployment", "autoscaling", *one["loc"])
        return str(one["loc"][0]), right_for(one, place, Scenario)
    try:
        make(found.policy, found)
    except OptionError as error:
        return error.option, error.right
    except Exception as error:  # a class of somebody else's may raise anything
        return "", str(error)
    return found


def _usable(
    key: str, tried: Sequence[Any], accepted: Sequence[Mapping[str, Any]], refused: Sequence[_Refused]
) -> None:
    """A value that no combination takes is a mistake; one that only some do not is none."""
    for value in tried:
        if any(key in values and values[key] == value for values in accepted):
            continue
        failed = [r for r in refused if key in r.values and r.values[key] == value]
        failed.sort(key=lambda r: r.key != key)
        raise SettingsError(f"--vary {key}: value {shown(value)}: {failed[0].right}")


def _values(found: Autoscaling, section: Mapping[str, Any], ranges: Ranges) -> tuple[tuple[str, Any], ...]:
    """The varied settings of one, with what holds where its section does not say."""
    options = section.get("policy_options") or {}
    made = []
    for key in ranges:
        if key in section or key in options:
            value = section.get(key, options.get(key))
        elif key in Autoscaling.model_fields:
            value = written_value(key, getattr(found, key))
        else:
            value = written_value(f"{key}_s", parameters(found.policy, Autoscaling).options.get(key))
        made.append((key, value))
    return tuple(made)
