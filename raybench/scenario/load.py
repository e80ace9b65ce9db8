"""From a YAML file to a Scenario, or to every mistake in it: one line each, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from raybench.scenario import yamltree
from raybench.scenario.base import BASE_DIR
from raybench.scenario.deployment import Autoscaling
from raybench.scenario.models import Scenario
from raybench.scenario.units import WRITTEN
from raybench.scenario.words import nearest, right_for, shown

Place = tuple[str | int, ...]

_LARGEST_FILE = 10 * 2**20


class ScenarioError(ValueError):
    """What is wrong with a scenario. `str()` is all of it, one mistake a line:
    `file:line: key.path: value …: what would be right`.
    """


class _Found(NamedTuple):
    place: Place
    value: str
    right: str


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """Read and validate a scenario file.

    `overrides` replaces or adds values by dotted key (`{"deployment.engine": "emulated"}`; list entries by
    number: `load.stages.0.duration`), written as in the file. Data files are found relative to the
    scenario's directory and read once to see that they can be. Raises ScenarioError.
    """
    path = Path(path)
    text = _text(path)
    try:
        document = yamltree.read(text)
    except yamltree.Broken as error:
        raise ScenarioError(f"{path}:{error.line}: not readable as YAML: {error.problem}") from None
    data = document.data
    if not isinstance(data, dict):
        raise ScenarioError(
            f"{path}:1: value {shown(data)}: a scenario is a mapping that begins with `name:`"
        )
    lines = dict(document.lines)
    lines.pop((), None)
    mistakes = [(line, _Found(at, value, right)) for line, at, value, right in document.mistakes]

    given: set[Place] = set()
    for key, value in (overrides or {}).items():
        place = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        if not _put(data, place, value):
            raise ScenarioError(f"override: {key}: value {shown(value)}: no such place in {path}")
        given.add(place)

    scenario, found = _validate(data, path.parent)
    if scenario is not None and not mistakes:
        found = list(_beyond(scenario))
    mistakes += [(_line(lines, f.place), f) for f in found]
    if mistakes or scenario is None:
        mistakes.sort(key=lambda m: m[0])
        raise ScenarioError("\n".join(_written(path, line, f, given) for line, f in mistakes))
    return scenario


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ScenarioError(f"{path}: larger than {_LARGEST_FILE >> 20} MiB; is this a scenario?")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _put(data: Any, place: Place, value: Any) -> bool:
    """Set one value, making mappings on the way. False where the way is blocked."""
    for i, part in enumerate(place):
        last = i == len(place) - 1
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            if last:
                data[part] = value
            data = data[part]
        elif isinstance(data, dict):
            if last:
                data[part] = value
            elif data.get(part) is None:
                data[part] = {}
            data = data[part]
        else:
            return False
    return True


# --- validation ---------------------------------------------------------------------------------------


def _validate(data: Any, base: Path) -> tuple[Scenario | None, list[_Found]]:
    """The scenario, or everything wrong with the data.

    Checks of combinations only run on a mapping whose own values are right. So what was found wrong is
    taken out and the rest validated again, until nothing new turns up: a missing unit on one line does
    not hide `min > max` on another.
    """
    found: dict[Place, _Found] = {}
    rest = deepcopy(data)
    for again in range(20):
        try:
            scenario = Scenario.model_validate(rest, context={WRITTEN: True, BASE_DIR: str(base)})
            return (None if again else scenario), list(found.values())
        except ValidationError as error:
            new = _translate(error, data)
        removed = False
        for one in new:
            # What is missing after the first pass is missing because it was taken out.
            if again and one.value == "missing":
                continue
            if not any(one.place[: len(old)] == old for old in found):
                found[one.place] = one
                removed = _remove(rest, one.place) or removed
        if not removed:
            break
    return None, list(found.values())


def _remove(data: Any, place: Place) -> bool:
    for part in place[:-1]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(data, dict) and place and place[-1] in data:
        del data[place[-1]]
        return True
    return False


def _translate(error: ValidationError, data: Any) -> list[_Found]:
    """pydantic's errors as places in the file and words; the branches of a union come together."""
    found: dict[Place, _Found] = {}

    def add(place: Place, value: str, right: str) -> None:
        old = found.get(place)
        if old is None:
            found[place] = _Found(place, value, right)
        elif right not in old.right:
            found[place] = old._replace(right=f"{old.right}, or {right}")

    for one in error.errors(include_url=False):
        place = _place(one["loc"], data)
        if one["type"] == "mistakes":
            for mistake in one["ctx"]["mistakes"]:
                at = place + mistake.key
                add(at, "(not shown)" if mistake.secret else _value(data, at), mistake.right)
        else:
            if one["type"] == "missing":
                place += (one["loc"][-1],)
            elif one["type"].startswith("union_tag"):
                place += (str(one["ctx"]["discriminator"]).strip("'"),)
            add(place, _value(data, place), right_for(one, place, Scenario))
    return list(found.values())


def _place(loc: tuple[str | int, ...], data: Any) -> Place:
    """pydantic's location without what it adds: tags of unions and names of types."""
    place: list[str | int] = []
    for part in loc:
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            place.append(part)
            data = data[part]
    return tuple(place)


def _value(data: Any, place: Place) -> str:
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return "missing"
    return shown(data)


def _line(lines: Mapping[Place, int], place: Place) -> int:
    """The line of the nearest thing that is in the file; 1 for the file as a whole."""
    return next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 1)


def _written(path: Path, number: int, found: _Found, given: set[Place]) -> str:
    where = "override" if any(found.place[: len(g)] == g for g in given) else f"{path}:{number}"
    key = ""
    for part in found.place:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    line = f"{where}: {key or 'scenario'}: value {found.value}: {found.right}"
    # One mistake a line, whatever stands in a key: nothing in it may break the line or move the cursor.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


# --- what only other rooms know -----------------------------------------------------------------------


def _beyond(scenario: Scenario) -> Iterator[_Found]:
    """Names that other modules know, and data files: each is read once, as the run will read it."""
    from raybench.engine_model import PRESETS  # these three read the models, so they come late
    from raybench.policies import POLICIES
    from raybench.workload.check import bad_files

    deployment = scenario.deployment
    if deployment is not None:
        policy, preset = deployment.autoscaling.policy, deployment.emulated.preset
        if ":" not in policy and policy not in POLICIES:
            right = f"no such policy; {nearest(policy, list(POLICIES))}; your own is named module:Class"
            yield _Found(("deployment", "autoscaling", "policy"), shown(policy), right)
        else:
            yield from _refused(deployment.autoscaling)
        if preset not in PRESETS:
            right = f"no such preset; {nearest(preset, list(PRESETS))}"
            yield _Found(("deployment", "emulated", "preset"), shown(preset), right)
    for place, value, right in bad_files(scenario):
        yield _Found(place, shown(value), right)


def _refused(autoscaling: Autoscaling) -> Iterator[_Found]:
    """What the policy says against its settings. A class that cannot be had here may be where it will run."""
    from raybench.policies import NoSuchPolicyError, OptionError, make

    own: Place = ("deployment", "autoscaling")
    options = autoscaling.policy_options
    try:
        make(autoscaling.policy, autoscaling)
    except NoSuchPolicyError:
        return
    except OptionError as error:
        place = (*own, "policy_options", error.option)
        yield _Found(place, shown(options[error.option]), error.right)
    except Exception as error:  # a class of somebody else's may raise anything
        key = "policy_options" if options else "policy"
        yield _Found((*own, key), shown(getattr(autoscaling, key)), str(error))
