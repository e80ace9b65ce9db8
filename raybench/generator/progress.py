"""What a generator can say about itself while it runs, cheaply and from any thread."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

_MINOR = 4  # bits below the leading one: buckets 6% wide


@dataclass(frozen=True)
class Progress:
    """A snapshot. Lateness figures are upper edges of buckets 6% wide, recent medians are over the
    last `RECENT` answers: both for watching. Reports compute from the rows."""

    planned: int
    sent: int = 0
    in_flight: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)  # outcome -> rows accounted for
    lateness_p50_ns: int | None = None
    lateness_p99_ns: int | None = None
    lateness_max_ns: int | None = None
    ttft_p50_ns: int | None = None  # from scheduled (from sent in a closed loop), of recent answers
    e2e_p50_ns: int | None = None
    finished: bool = False
    problems: tuple[str, ...] = ()
    rss_bytes: int = 0  # of this process, where whoever runs it says so
    not_written: tuple[str, ...] = ()  # what the sink refused for a while, likewise
    counted: dict[str, tuple[int, ...]] = field(default_factory=dict)  # requests in buckets, likewise

    @property
    def accounted(self) -> int:
        return sum(self.outcomes.values())


class Lateness:
    """Counts durations in logarithmic buckets: no memory that grows, 0.2 µs to add one."""

    def __init__(self) -> None:
        self.counts = array("q", bytes(8 * (64 << _MINOR)))
        self.total = 0
        self.max_ns: int | None = None
        self.interval_max_ns: int | None = None  # since the last `take_interval`

    def add(self, late_ns: int) -> None:
        late_ns = max(late_ns, 0)
        shift = late_ns.bit_length() - _MINOR - 1
        # Below 2^5 a bucket is a nanosecond; above, the five leading bits name the bucket.
        self.counts[late_ns if shift <= 0 else (shift << _MINOR) + (late_ns >> shift)] += 1
        self.total += 1
        if self.interval_max_ns is None or late_ns > self.interval_max_ns:
            self.interval_max_ns = late_ns
            if self.max_ns is None or late_ns > self.max_ns:
                self.max_ns = late_ns

    def take_interval(self) -> int | None:
        taken, self.interval_max_ns = self.interval_max_ns, None
        return taken

    def quantile(self, p: float) -> int | None:
        """Nearest rank, rounded up to the bucket's edge; None when nothing was added."""
        if not self.total or self.max_ns is None:
            return None
        left = max(1, -int(-p * self.total // 1))
        for bucket, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                shift = (bucket >> _MINOR) - 1
                if shift <= 0:
                    return min(bucket, self.max_ns)
                return min((((bucket & ((1 << _MINOR) - 1)) | 1 << _MINOR) + 1 << shift) - 1, self.max_ns)
        return self.max_ns
