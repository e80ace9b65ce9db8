"""The manifest on disk: JSON, written beside, synced and renamed: a reader sees the old or the new."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

from raybench.schema import FORMAT_VERSION, ClockSample, Host, LoadKind, Manifest, RunStatus

FILE_NAME = "manifest.json"
STALE_S = 15.0
"""A `running` manifest whose heartbeat is older than this belongs to a run that was killed."""


class RunError(Exception):
    """A run directory that cannot be made or read; the message names the file and what would be right."""


def write(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest of a run whole. Raises OSError; the manifest before then stays as it was."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1, sort_keys=False, default=str)
    beside = directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        with beside.open("w", encoding="utf-8") as f:
            f.write(text + "\n")
            f.flush()
            os.fsync(f.fileno())
        beside.replace(directory / FILE_NAME)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    """The rename reaches the disk. Some file systems refuse to sync a directory: not worth failing."""
    try:
        fd = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def read(directory: Path, *, now_unix_ns: int | None = None) -> Manifest:
    """The manifest of a run; `running` with a stale heartbeat comes back as `killed`. Raises RunError."""
    path = directory / FILE_NAME
    if not directory.exists():
        raise RunError(
            f"{directory}: no such directory; name a run directory, the one that holds {FILE_NAME}"
        )
    if not directory.is_dir():
        raise RunError(
            f"{directory}: not a directory; name the run directory, the one that holds {FILE_NAME}"
        )
    if not path.exists():
        inside = sorted(p.parent.name for p in directory.glob(f"*/{FILE_NAME}"))
        hint = f"; it holds runs, name one of them: {', '.join(inside[-5:])}" if inside else ""
        raise RunError(f"{directory}: no {FILE_NAME} in it, so this is not a run directory{hint}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise RunError(f"{path}: cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise RunError(f"{path}: corrupt, not JSON ({e}); the tables beside it may still be whole") from e
    if not isinstance(data, dict):
        raise RunError(f"{path}: corrupt, a JSON object is expected, found {type(data).__name__}")
    version = data.get("format_version")
    if not isinstance(version, int):
        raise RunError(f"{path}: corrupt, key `format_version` is {version!r}; an integer is expected")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest read here; "
            f"use the raybench that wrote it ({data.get('versions', {}).get('raybench', 'a later one')})"
        )
    manifest = _parse(path, data)
    if manifest.status is RunStatus.RUNNING:
        alive = max(manifest.heartbeat_unix_ns, manifest.created_unix_ns)
        now = time.time_ns() if now_unix_ns is None else now_unix_ns
        if now - alive > STALE_S * 1e9:
            manifest.status = RunStatus.KILLED
    return manifest


def _parse(path: Path, data: dict[str, Any]) -> Manifest:
    """Unknown keys are left out: a later raybench may add some without a new format version."""
    known = {f.name: f for f in dataclasses.fields(Manifest)}
    values = {k: v for k, v in data.items() if k in known}
    required = {n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING}
    if lacking := sorted(required - values.keys()):
        raise RunError(f"{path}: corrupt, these keys are missing: {', '.join(lacking)}")
    try:
        values["load_kind"] = LoadKind(values["load_kind"])
        values["status"] = RunStatus(values.get("status", RunStatus.RUNNING))
        values["planned"] = int(values["planned"])
        values["hosts"] = [
            Host(**{**host, "clock": [ClockSample(**sample) for sample in host.get("clock", [])]})
            for host in values.get("hosts", [])
        ]
    except (TypeError, ValueError, AttributeError) as e:
        raise RunError(f"{path}: corrupt: {e}") from e
    return Manifest(**values)
