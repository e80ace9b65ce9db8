"""From a writer's clock to the coordinator's, by interpolation between the samples in the manifest.

A host's sample says: when the coordinator's clock showed `t_ns`, the host's showed `t_ns + offset_ns`.
Between samples the offset runs in a straight line, before the first and after the last it stays. A writer's
instants count from the t0 that it was told, which is the coordinator's moved by `Host.t0_offset_ns`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raybench.schema import ClockSample, Host, Manifest


class Correction:
    """Maps instants of one host to the coordinator's clock."""

    def __init__(self, samples: list[ClockSample], t0_offset_ns: int = 0) -> None:
        ordered = sorted(samples, key=lambda s: s.t_ns)
        self._offset_0 = ordered[0].offset_ns
        self._local_0 = ordered[0].t_ns + self._offset_0
        self._t0_offset = t0_offset_ns
        # Differences from the first sample: two hosts' clocks can be years apart, float64 ends at 2**53.
        self._x = np.array([s.t_ns + s.offset_ns - self._local_0 for s in ordered], np.float64)
        self._y = np.array([s.offset_ns - self._offset_0 for s in ordered], np.float64)

    def __call__(self, local_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        local_ns = local_ns + self._t0_offset
        drift = np.interp((local_ns - self._local_0).astype(np.float64), self._x, self._y)
        return np.asarray(local_ns - self._offset_0 - np.rint(drift).astype(np.int64), np.int64)


def correction_for(manifest: Manifest, writer: str, pid: int) -> Correction | None:
    """What a writer's file needs; None where its host has the coordinator's own clock.

    Writers are named as in `LocalSink`. A generator's name is its own, such as `g003.5f2a91c0`
    (`Host.writer`), whoever wrote the file for it. Without that, as in older runs, `g003` is generator 3 and
    the pid tells two of that number apart, failing that the later one counts. Any other name is of the
    monitor's host.
    """
    host: Host | None = next((h for h in manifest.hosts if h.writer and h.writer == writer), None)
    if host is None:
        name = writer.partition(".")[0]
        is_generator = name[:1] == "g" and name[1:].isdigit()
        role, number = ("generator", int(name[1:])) if is_generator else (writer, None)
        hosts = [h for h in manifest.hosts if h.role == role and number in (None, h.number)]
        host = next((h for h in hosts if h.pid == pid), hosts[-1] if hosts else None)
    if host is None or not any(s.offset_ns for s in host.clock):
        return None
    return Correction(host.clock, host.t0_offset_ns)
