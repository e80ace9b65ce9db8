"""Where a run's tables go: a directory, or a URI with a staging directory on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from raybench.fleet.cluster import in_job
from raybench.rundir import fresh_path
from raybench.rundir.remote import is_uri

JOB_DIRECTORY = "runtime_resources"
"""The part of a path by which Ray's unpacked working directories are known; Ray deletes them."""


class OutputError(Exception):
    """The place cannot take a run; the text says which can."""


@dataclass(frozen=True)
class Output:
    """`path` is the run directory on this machine; `uri` where it is mirrored to, if anywhere."""

    path: Path
    uri: str | None = None

    @property
    def shown(self) -> str:
        return self.uri or str(self.path)


def choose(wanted: str | None, name: str, *, outputs: Path = Path("outputs")) -> Output:
    """`wanted` is a directory that is new or empty, a URI, or None for `outputs/NAME-DATE-TIME`.

    Raises OutputError where the place is taken, or lies in a job's own temporary directory.
    """
    if wanted and is_uri(wanted):
        staging = Path(tempfile.mkdtemp(prefix=f"raybench-{name}-"))
        return Output(staging, wanted.rstrip("/"))
    path = Path(wanted) if wanted else fresh_path(outputs, name)
    if in_job() and JOB_DIRECTORY in path.resolve().parts:
        raise OutputError(
            f"--output {path}: lies in the job's own temporary directory, which Ray deletes; "
            "name an absolute path on this node or a shared disk, or a URI such as s3://bucket/run"
        )
    if path.exists() and not path.is_dir():
        raise OutputError(f"--output {path}: is a file; name a directory that is new or empty")
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"--output {path}: is not empty; name a directory that is new or empty")
    return Output(path)
