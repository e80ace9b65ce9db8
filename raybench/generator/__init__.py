"""One slice of a schedule on one event loop: sends at its instants, times the answers, writes the tables.

Without Ray, so that it can be tested, measured and calibrated alone:

    progress = Drive(slice, sink).run(t0_ns=time.monotonic_ns() + 1_000_000_000)
"""

from raybench.generator.drive import Drive
from raybench.generator.progress import Progress
from raybench.generator.slice import Bodies, Sink, Slice

__all__ = ["Bodies", "Drive", "Progress", "Sink", "Slice"]
