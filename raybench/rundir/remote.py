"""A run whose results belong in an object store or any place `pyarrow.fs` can name by URI.

The run is written to a local staging directory as always and mirrored as it grows: a stream is readable
to its last whole batch at any length, so a copy of a growing file is as good as the file. Nothing waits
for the store; a store that fails is reported and tried again, and the staging directory stays until
everything has arrived.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from raybench.rundir.manifest import FILE_NAME, RunError

PERIOD_S = 15.0


def is_uri(text: str) -> bool:
    """`s3://bucket/run`, `gs://…`, `file:///…`: what goes through `pyarrow.fs`."""
    return "://" in text


def _resolve(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise RunError(
            f"{uri}: not a place for a run: {error}; "
            "name a directory, or a URI such as s3://bucket/run, gs://bucket/run or file:///shared/run"
        ) from error
    return filesystem, path.rstrip("/")


class Mirror:
    """Keeps a copy of the run directory `local` at `uri`. Raises RunError where that place is taken."""

    def __init__(self, local: Path, uri: str, *, report: Callable[[str], None]) -> None:
        self._local, self.uri, self._report = local, uri, report
        self._filesystem, self._base = _resolve(uri)
        self._sent: dict[Path, tuple[int, int]] = {}
        self._failing = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="mirror", daemon=True)
        try:
            taken = self._filesystem.get_file_info(fs.FileSelector(self._base, allow_not_found=True))
            if taken:
                raise RunError(f"{uri}: is not empty; name a place that does not exist yet")
            self._filesystem.create_dir(self._base, recursive=True)
        except OSError as error:
            raise RunError(f"{uri}: cannot be written: {error}") from error

    def start(self) -> None:
        self._thread.start()

    def copy(self) -> bool:
        """One pass: every file that changed, the manifest last. False where something did not arrive."""
        with self._lock:
            files = sorted(p for p in self._local.rglob("*") if p.is_file() and not p.name.startswith("."))
            whole = True
            for path in sorted(files, key=lambda p: p.name == FILE_NAME):
                try:
                    stat = path.stat()
                    if self._sent.get(path) == (stat.st_size, stat.st_mtime_ns):
                        continue
                    self._send(path)
                    self._sent[path] = (stat.st_size, stat.st_mtime_ns)
                except (OSError, pa.ArrowException) as error:
                    whole = False
                    if not self._failing:
                        self._report(f"{self.uri}: could not be written, will be tried again: {error}")
                    self._failing = True
                    break
            if whole and self._failing:
                self._failing = False
                self._report(f"{self.uri}: can be written again")
            return whole

    def close(self) -> bool:
        """The last pass; False where the staging directory is all there is of something."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=60)
        return self.copy()

    def _loop(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self.copy()

    def _send(self, path: Path) -> None:
        target = PurePosixPath(self._base, *path.relative_to(self._local).parts)
        self._filesystem.create_dir(str(target.parent), recursive=True)
        with path.open("rb") as source, self._filesystem.open_output_stream(str(target)) as sink:
            while block := source.read(2**20):
                sink.write(block)


def fetch(uri: str) -> Path:
    """A local copy of the run at `uri`, in a temporary directory of its own. Raises RunError."""
    filesystem, base = _resolve(uri)
    directory = Path(tempfile.mkdtemp(prefix="raybench-"))
    try:
        found = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
    except OSError as error:
        raise RunError(f"{uri}: cannot be read: {error}") from error
    for info in found:
        if info.type != fs.FileType.File:
            continue
        target = directory / PurePosixPath(info.path).relative_to(PurePosixPath(base))
        target.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.open_input_stream(info.path) as source, target.open("wb") as sink:
            while block := source.read(2**20):
                sink.write(block)
    return directory


def local(place: str) -> Path:
    """A run as a directory on this machine: the place itself, or a copy of a URI that lives as long as this
    process. Raises RunError.
    """
    if not is_uri(place):
        return Path(place)
    directory = fetch(place)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
