"""oha's arithmetic, by its own test vectors and by the three published tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import yaml

from raybench.analysis import Anchor, Question, oha, summarise
from raybench.report import oha as text
from raybench.rundir import open_run
from raybench.schema import Outcome, Requests

REFERENCE = yaml.safe_load(
    (Path(__file__).parent.parent / "scenarios" / "published" / "reference.yaml").read_text(encoding="utf-8")
)


def floats(*values: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(values, np.float64)


def test_histogram_vectors() -> None:
    one_to_ten = floats(*range(1, 11))
    assert oha.histogram(one_to_ten, 10) == tuple((float(i), 1) for i in range(1, 11))
    assert oha.histogram(one_to_ten, 4) == ((1.0, 1), (4.0, 3), (7.0, 3), (10.0, 3))
    assert oha.histogram(floats(2, 2, 2), 3) == ((2.0, 3), (2.0, 0), (2.0, 0))
    assert oha.histogram(floats()) == ()
    assert len(oha.histogram(floats(1.0))) == 11


def test_percentile_vector() -> None:
    values = [5.0] * 5 + [10.0] * 5 + [11.0] * 10 + [12.0] * 10 + [15.0] * 5 + [20.0] * 3 + [25.0, 30.0]
    found = [v for _, v in oha.percentiles(floats(*values))]
    assert found == [5, 11, 12, 15, 20, 25, 30, 30, 30]
    assert [v for _, v in oha.percentiles(floats())] == [None] * 9


def test_sizes_print_as_oha_prints_them() -> None:
    assert [text.binary_bytes(n) for n in (0, 255, 1023, 1024, 1536, 681_892, 1024**2, 5 * 1024**3)] == [
        "0 B",
        "255 B",
        "1023 B",
        "1.00 KiB",
        "1.50 KiB",
        "665.91 KiB",
        "1.00 MiB",
        "5.00 GiB",
    ]


# --- the published tables ---------------------------------------------------------------------------


def latencies_s(published: dict[str, Any], n: int) -> list[float]:
    """`n` latencies with the published extremes, order statistics, histogram and average.

    Order statistics pin some ranks and the histogram pins every rank to a bin; the ranks between can lie
    anywhere in between, so they are moved together until the average fits.
    """
    low, high = published["fastest_s"], published["slowest_s"]
    pinned = {0: low, n - 1: high}
    for percent, value in published["percentiles"].items():
        pinned[int(percent / 100 * n)] = value
    step = (high - low) / 10
    edges = [(low + step * (i - 1), low + step * i) for i in range(11)]
    bins = [i for i, count in enumerate(published["histogram"].values()) for _ in range(count)]
    assert len(bins) == n
    lows, highs = [], []
    for rank, b in enumerate(bins):
        below = max((v for r, v in pinned.items() if r <= rank), default=low)
        above = min((v for r, v in pinned.items() if r >= rank), default=high)
        inside = (
            (below, above) if b == 0 else (max(below, edges[b][0] + 1e-3), min(above, edges[b][1] - 1e-3))
        )
        if rank in pinned:
            inside = (pinned[rank], pinned[rank])
        assert inside[0] <= inside[1] + 1e-9, (rank, b, inside)
        lows.append(inside[0])
        highs.append(inside[1])
    room = sum(highs) - sum(lows)
    share = (published["average_s"] * n - sum(lows)) / room
    assert 0 <= share <= 1
    return [round(a + share * (b - a), 6) for a, b in zip(lows, highs, strict=True)]


def total_bytes(published: dict[str, Any], n: int) -> int:
    """A number of bytes that prints as all three published sizes."""
    about = round(float(published["total_data"].split()[0]) * 1024)
    for total in range(about - 8, about + 9):
        printed = (total, total // n, int(total / published["total_s"]))
        want = (published["total_data"], published["size_per_request"], published["size_per_s"])
        if tuple(map(text.binary_bytes, printed)) == want:
            return total
    raise AssertionError("no number of bytes fits the published sizes")


@pytest.mark.parametrize("profile", list(REFERENCE["profiles"]))
def test_a_run_with_the_published_latencies_prints_the_published_report(tmp_path: Path, profile: str) -> None:
    published, derived = (
        REFERENCE["profiles"][profile]["published"],
        REFERENCE["profiles"][profile]["derived"],
    )
    n, errors = derived["answered"], derived["errors"]
    size = total_bytes(published, n)
    rows = []
    interval = REFERENCE["profiles"][profile]["request_interval_s"]
    rng = np.random.default_rng(1)
    for i, latency in enumerate(rng.permutation(latencies_s(published, n))):
        share = size // n + (size % n if i == 0 else 0)
        cut = latency > 300 or latency < 0.38
        made = runs.ok(i, anchor_s=i * interval, done_s=i * interval + latency, bytes=share)
        rows.append(made | ({Requests.outcome: Outcome.HTTP_ERROR, Requests.http_status: 504} if cut else {}))
    rows += [runs.failed(n + i, Outcome.CONNECT_ERROR, "reset", anchor_s=1, done_s=2) for i in range(errors)]
    path = runs.write(tmp_path / "r", rows, load_total_s=published["total_s"])
    (figures,) = summarise(open_run(path)).oha
    lines = text.render(figures).splitlines()
    want = [
        f"  Success rate:\t{published['success_rate_pct']:.2f}%",
        f"  Total:\t{published['total_s']:.4f} secs",
        f"  Slowest:\t{published['slowest_s']:.4f} secs",
        f"  Fastest:\t{published['fastest_s']:.4f} secs",
        f"  Average:\t{published['average_s']:.4f} secs",
        f"  Requests/sec:\t{published['requests_per_s']:.4f}",
        f"  Total data:\t{published['total_data']}",
        f"  Size/request:\t{published['size_per_request']}",
        f"  Size/sec:\t{published['size_per_s']}",
        *(f"  {p:.2f}% in {v:.4f} secs" for p, v in published["percentiles"].items()),
    ]
    assert [line for line in want if line not in lines] == []
    first = lines.index("Response time histogram:") + 1
    bars = lines[first : first + 11]
    most = max(published["histogram"].values())
    for line, (label, count) in zip(bars, published["histogram"].items(), strict=True):
        head, _, bar = line.partition("|")
        assert head.split()[:2] == [f"{label:.3f}", f"[{count}]"]
        assert bar == "■" * (32 * count // most)
    assert len({line.index("|") for line in bars}) == 1


def test_the_whole_block_to_the_letter() -> None:
    figures = oha.figures(
        oha.durations(floats(1.0, 2.0, 3.0, 12.0)),
        errors={"connection refused": 2},
        total_s=10.0,
        total_bytes=6000,
        status_codes={500: 1, 200: 3},
        dialup_s=(0.002, 0.001, 0.003),
        toks_per_s=(60.0, 66.0),
    )
    assert text.render(figures) == (
        "Summary:\n"
        "  Success rate:\t66.67%\n"
        "  Total:\t10.0000 secs\n"
        "  Slowest:\t12.0000 secs\n"
        "  Fastest:\t1.0000 secs\n"
        "  Average:\t4.5000 secs\n"
        "  Requests/sec:\t0.6000\n"
        "  Toks/s:\t60.0 - 66.0\n"
        "\n"
        "  Total data:\t5.86 KiB\n"
        "  Size/request:\t1.46 KiB\n"
        "  Size/sec:\t600 B\n"
        "\n"
        "Response time histogram:\n"
        "   1.000 [1] |■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■\n"
        "   2.100 [1] |■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■\n"
        "   3.200 [1] |■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■\n"
        "   4.300 [0] |\n"
        "   5.400 [0] |\n"
        "   6.500 [0] |\n"
        "   7.600 [0] |\n"
        "   8.700 [0] |\n"
        "   9.800 [0] |\n"
        "  10.900 [0] |\n"
        "  12.000 [1] |■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■\n"
        "\n"
        "Response time distribution:\n"
        "  10.00% in 1.0000 secs\n"
        "  25.00% in 2.0000 secs\n"
        "  50.00% in 3.0000 secs\n"
        "  75.00% in 12.0000 secs\n"
        "  90.00% in 12.0000 secs\n"
        "  95.00% in 12.0000 secs\n"
        "  99.00% in 12.0000 secs\n"
        "  99.90% in 12.0000 secs\n"
        "  99.99% in 12.0000 secs\n"
        "\n"
        "\n"
        "Details (average, fastest, slowest):\n"
        "  DNS+dialup:\t0.0020 secs, 0.0010 secs, 0.0030 secs\n"
        "\n"
        "Status code distribution:\n"
        "  [200] 3 responses\n"
        "  [500] 1 responses\n"
        "\n"
        "Error distribution:\n"
        "  [2] connection refused"
    )


def test_nothing_at_all_prints_without_infinities() -> None:
    block = text.render(oha.figures(oha.durations(floats()), errors={}, total_s=None))
    assert "Success rate:\tNaN%" in block
    assert "inf" not in block


def test_what_oha_counts_otherwise_is_said(tmp_path: Path) -> None:
    """An error status is oha's success; its own timeout is its error; what the end cut off is left out."""
    o = Outcome
    rows = [
        runs.ok(0, anchor_s=0, done_s=1),
        runs.failed(1, o.HTTP_ERROR, "500", anchor_s=0, done_s=1, http_status=500),
        runs.failed(2, o.STREAM_CUT, "cut", anchor_s=0, done_s=1, http_status=200),
        runs.failed(3, o.TIMEOUT, "timeout", anchor_s=0, done_s=5, http_status=200),
        runs.failed(4, o.CANCELLED, "", anchor_s=0, done_s=1),
        runs.failed(5, o.NOT_SENT, "", anchor_s=0) | {Requests.sent_ns: None},
        runs.failed(6, o.CONNECT_ERROR, "refused", anchor_s=0, done_s=1),
    ]
    summary = summarise(open_run(runs.write(tmp_path / "r", rows, load_total_s=10.0)))
    (f,) = summary.oha
    assert f.successes == 3
    assert f.success_rate == 3 / 5
    assert f.requests_per_s == 6 / 10
    assert f.errors == {"cancelled": 1, "refused": 1, "timeout": 1}
    assert f.counted_as_success == {"http_error": 1, "stream_cut": 1}
    assert f.left_out == {"cancelled": 1, "not_sent": 1}
    assert text.difference(f, summary.success_rate) == (
        "Success rate here: 14.29%; in oha's form: 60.00%. oha takes any HTTP status for a success, so also "
        "1 http_error, 1 stream_cut. oha leaves out what it did not send or cut off itself: 1 cancelled, "
        "1 not_sent."
    )


def test_a_good_answer_without_a_recorded_status_is_a_success(tmp_path: Path) -> None:
    """A simulated run has no statuses."""
    rows = [runs.ok(i, anchor_s=i, done_s=i + 1) | {Requests.http_status: None} for i in range(3)]
    (f,) = summarise(open_run(runs.write(tmp_path / "r", rows))).oha
    assert (f.successes, f.success_rate, f.status_codes) == (3, 1.0, ())


def test_from_the_schedule_it_is_printed_again(tmp_path: Path) -> None:
    rows = [runs.ok(i, anchor_s=i, sent_s=i + 0.5, done_s=i + 2) for i in range(4)]
    run = open_run(runs.write(tmp_path / "r", rows))
    sent, scheduled = summarise(run, Question(anchor=Anchor.SCHEDULED)).oha
    assert (sent.slowest_s, scheduled.slowest_s) == (1.5, 2.0)
    assert len(summarise(run, Question(anchor=Anchor.SENT)).oha) == 1
