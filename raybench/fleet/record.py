"""The manifest of a run while it goes: renewed every second, with everything that went wrong in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa

from raybench import rundir
from raybench.fleet.output import Output
from raybench.fleet.patience import REFUSED
from raybench.rundir.remote import Mirror
from raybench.schema import Manifest, RunStatus

HEARTBEAT_S = 1.0
SAVE_TRIES = 5
SAVE_PAUSE_S = 1.0


class Record:
    """Holds the run directory and its manifest. `problem` may be called from any thread."""

    def __init__(self, manifest: Manifest, output: Output, failed: Callable[[str, str], None]) -> None:
        """`failed(subject, text)` is told whatever could not be written, and when it can be again."""
        self.manifest, self.output, self._failed = manifest, output, failed
        self._mirror: Mirror | None = None
        self._saving, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def begin(self, plan: pa.Table) -> None:
        """Makes the directory, writes the plan and starts the heartbeat. Raises RunError: a run whose plan is
        not on the disk could not tell what it lost."""
        if uri := self.output.uri:
            self._mirror = Mirror(self.output.path, uri, report=lambda text: self.not_written(uri, text))
        self._directory = rundir.create(self.output.path, self.manifest)
        try:
            self._directory.write_schedule(plan)
        except OSError as error:
            self.manifest.status = RunStatus.FAILED
            with suppress(OSError):
                self.save()
            raise rundir.RunError(
                f"{self.output.path}: the schedule {REFUSED}: {error.strerror or error}; "
                "name a directory on a disk with space that you may write to"
            ) from error
        if self._mirror:
            self._mirror.start()
        self._thread.start()

    def problem(self, text: str) -> bool:
        """Keeps what went wrong; whether that is new."""
        if text in self.manifest.problems:
            return False
        self.manifest.problems.append(text)
        return True

    def not_written(self, subject: str, text: str) -> None:
        """`subject`: a generator, the monitor, the manifest, or where the run is mirrored to."""
        if self.problem(text):
            self._failed(subject, text)

    def save(self) -> None:
        """Renews the manifest. Raises OSError; the one before then stays."""
        with self._saving:
            self.manifest.heartbeat_unix_ns = time.time_ns()
            self._directory.save(self.manifest)

    def end(self) -> None:
        """The last word on the run, with some patience. Without it the run will read as killed."""
        self._stop.set()
        self._thread.join()
        self.save_with_patience()

    def save_with_patience(self) -> None:
        for attempt in range(SAVE_TRIES):
            try:
                self.save()
            except OSError as error:
                self.not_written("manifest", f"manifest: {REFUSED}: {error}")
                time.sleep(SAVE_PAUSE_S * (attempt < SAVE_TRIES - 1))
            else:
                break

    def deliver(self) -> bool:
        """Brings everything to where `output` says; False where the staging directory is all there is."""
        return self._mirror.close() if self._mirror else True

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self.save()
            except OSError as error:
                self.not_written("manifest", f"manifest: {REFUSED}: {error}")
