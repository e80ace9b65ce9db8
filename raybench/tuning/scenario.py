"""The scenario that would confirm a setting live: the one that was tuned, scaled by that setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml

from raybench.scenario import Scenario
from raybench.tuning.settings import Setting

_SUFFIX = "-tuned"
_LONGEST_NAME = 80


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # two equal lists are two lists: `&id001` helps nobody


def confirming(
    document: Mapping[str, Any],
    loaded: Scenario,
    setting: Setting,
    comment: Sequence[str] = (),
    *,
    elsewhere: bool = False,
) -> str:
    """The YAML of it. `document`: the tuned scenario as written, with what was asked in its place (a seed,
    objectives); `loaded`: the same, checked. `elsewhere`: it will lie in another directory: data files are
    then named by where they are. What its comments explained may no longer be so: they are left out.
    """
    # Name and description first: they say what is different.
    data = {"name": "", "description": "", **deepcopy(dict(document))}
    if elsewhere:
        data = _absolute(data, loaded.model_dump(mode="json"))
    data["name"] = loaded.name.removesuffix(_SUFFIX)[: _LONGEST_NAME - len(_SUFFIX)] + _SUFFIX
    data["description"] = f"{loaded.name}, scaled as raybench tune found it"
    data["deployment"] = {**data["deployment"], "autoscaling": setting.written}
    text = yaml.dump(data, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    return "".join(f"# {line}\n" for line in comment) + text


def _absolute(written: Any, loaded: Any) -> Any:
    """Where loading turned text into other text, it found a file: the only thing that it looks up."""
    if isinstance(written, dict) and isinstance(loaded, dict):
        return {key: _absolute(value, loaded.get(key)) for key, value in written.items()}
    if isinstance(written, list) and isinstance(loaded, list) and len(written) == len(loaded):
        return [_absolute(a, b) for a, b in zip(written, loaded, strict=True)]
    return loaded if isinstance(written, str) and isinstance(loaded, str) else written
