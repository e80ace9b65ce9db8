"""Making a run directory and keeping its manifest."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa

from raybench.rundir import manifest as manifests
from raybench.rundir.manifest import RunError
from raybench.rundir.segments import LocalSink
from raybench.schema import Manifest, Schedule


class RunDir:
    """A run that is being written. Sinks need only its `path`, so other processes make their own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest whole. Raises OSError; the one before then stays."""
        manifests.write(self.path, manifest)

    def sink(self, writer: str) -> LocalSink:
        return LocalSink(self.path, writer)

    def write_schedule(self, table: pa.Table) -> None:
        """Write the plan, once, in the order of request_id."""
        with LocalSink(self.path, "plan") as sink:
            for batch in table.select(Schedule.schema.names).cast(Schedule.schema).to_batches(2**16):
                sink.write(Schedule, batch)


def create(path: Path | str, manifest: Manifest) -> RunDir:
    """A new run directory at `path`, with its manifest in it. Raises RunError."""
    directory = Path(path)
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory}: is a file; a run needs a directory of its own, new or empty")
    if directory.is_dir() and any(directory.iterdir()):
        has_run = (directory / manifests.FILE_NAME).exists()
        what = "already holds a run" if has_run else "is not empty"
        raise RunError(
            f"{directory}: {what}; a run needs a directory of its own, new or empty, "
            f"for instance {fresh_path(directory.parent, manifest.name)}"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        run = RunDir(directory)
        run.save(manifest)
    except OSError as e:
        raise RunError(
            f"{directory}: cannot be written: {e.strerror or e}; "
            "name a directory on a disk with space that you may write to"
        ) from e
    return run


def fresh_path(parent: Path | str, name: str) -> Path:
    """A path under `parent` that does not exist yet: `demo-20260131-235959`, or with a count behind it."""
    base = Path(parent) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = base, 1
    while path.exists():
        count += 1
        path = base.with_name(f"{base.name}-{count}")
    return path
