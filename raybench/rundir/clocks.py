"""From a writer's clock to the coordinator's, by interpolation between the samples in the manifest.

A host's sample says: when the coordinator's clock showed `t_ns`, the host's showed `t_ns + offset_ns`.
Between samples the offset runs in a straight line, before the first and after the last it stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raybench.schema import ClockSample, Host, Manifest


class Correction:
    """Maps instants of one host to the coordinator's clock."""

    def __init__(self, samples: list[ClockSample]) -> None:
        ordered = sorted(samples, key=lambda s: s.t_ns)
        self._offset_0 = ordered[0].offset_ns
        self._local_0 = ordered[0].t_ns + self._offset_0
        # Differences from the first sample: two hosts' clocks can be years apart, float64 ends at 2**53.
        self._x = np.array([s.t_ns + s.offset_ns - self._local_0 for s in ordered], np.float64)
        self._y = np.array([s.offset_ns - self._offset_0 for s in ordered], np.float64)

    def __call__(self, local_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        drift = np.interp((local_ns - self._local_0).astype(np.float64), self._x, self._y)
        return np.asarray(local_ns - self._offset_0 - np.rint(drift).astype(np.int64), np.int64)


def correction_for(manifest: Manifest, writer: str, pid: int) -> Correction | None:
    """What a writer's file needs; None where its host has the coordinator's own clock.

    Writers are named as in `LocalSink`: `g003` is generator 3, anything else the monitor's host. Of two
    processes that had the same number the pid tells them apart; failing that, the later one.
    """
    is_generator = writer[:1] == "g" and writer[1:].isdigit()
    role, number = ("generator", int(writer[1:])) if is_generator else (writer, None)
    hosts = [h for h in manifest.hosts if h.role == role and number in (None, h.number)]
    host: Host | None = next((h for h in hosts if h.pid == pid), hosts[-1] if hosts else None)
    if host is None or not any(s.offset_ns for s in host.clock):
        return None
    return Correction(host.clock)
