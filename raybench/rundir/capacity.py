"""`capacity.json` on disk: written beside and renamed after each probe, so that a killed measurement keeps
what it had found.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from raybench.rundir.manifest import RunError
from raybench.schema.capacity import CAPACITY_VERSION, CapacityProbe, CapacityRun
from raybench.schema.vocabulary import RunStatus

FILE_NAME = "capacity.json"


def holds_capacity(path: Path | str) -> bool:
    """Whether there is a capacity run at `path`."""
    return (_directory(path) / FILE_NAME).is_file()


def write(directory: Path, found: CapacityRun) -> None:
    """Replaces the file whole. Raises OSError."""
    beside = directory / f".{FILE_NAME}.{os.getpid()}"
    with beside.open("w", encoding="utf-8") as f:
        f.write(json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        f.flush()
        os.fsync(f.fileno())
    beside.replace(directory / FILE_NAME)


def read(path: Path | str) -> CapacityRun:
    """The capacity run at `path`, the directory or its file. Raises RunError with what would be right."""
    directory = _directory(path)
    file = directory / FILE_NAME
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "no such directory" if not directory.is_dir() else f"no {FILE_NAME} in it"
        raise RunError(
            f"{directory}: {what}; name a capacity run (made by `raybench capacity`) or a number of requests "
            "a second, such as 2.5"
        ) from None
    except OSError as e:
        raise RunError(f"{file}: cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise RunError(f"{file}: corrupt, not JSON ({e})") from e
    version = data.get("capacity_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version > CAPACITY_VERSION:
        raise RunError(
            f"{file}: capacity_version {version!r}; up to {CAPACITY_VERSION} can be read here: use the "
            "raybench that wrote it"
        )
    known = {f.name for f in dataclasses.fields(CapacityRun)}
    values = {k: v for k, v in data.items() if k in known}
    own = {f.name for f in dataclasses.fields(CapacityProbe)}
    try:
        values["status"] = RunStatus(values["status"])
        values["probes"] = [
            CapacityProbe(**{k: v for k, v in p.items() if k in own}) for p in values["probes"]
        ]
        return CapacityRun(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise RunError(f"{file}: corrupt: {e}") from e


def _directory(path: Path | str) -> Path:
    path = Path(path)
    return path.parent if path.name == FILE_NAME else path
