"""The schedule: every planned request and its instant, made before the run. Pure functions of a scenario."""

from raybench.schedule.build import build, duration_ns, load_kind, phases, planned_ns
from raybench.schedule.processes import offsets_ns
from raybench.schedule.table import DIGEST_VERSION, digest, part, part_of, share

__all__ = [
    "DIGEST_VERSION",
    "build",
    "digest",
    "duration_ns",
    "load_kind",
    "offsets_ns",
    "part",
    "part_of",
    "phases",
    "planned_ns",
    "share",
]
