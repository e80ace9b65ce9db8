"""oha's text report, line by line, so that a published one and ours can be laid side by side."""

from __future__ import annotations

from raybench.analysis.figures import OhaFigures
from raybench.report.units import binary_bytes

BAR = 32


def render(figures: OhaFigures) -> str:
    """The block as oha prints it, in seconds throughout, with the published page's `Toks/s` line."""
    f = figures
    lines = [
        "Summary:",
        f"  Success rate:\t{_percent(f.success_rate)}%",
        f"  Total:\t{_four(f.total_s)} secs",
        f"  Slowest:\t{_four(f.slowest_s)} secs",
        f"  Fastest:\t{_four(f.fastest_s)} secs",
        f"  Average:\t{_four(f.average_s)} secs",
        f"  Requests/sec:\t{_four(f.requests_per_s)}",
    ]
    if f.toks_per_s is not None:
        lines.append(f"  Toks/s:\t{f.toks_per_s[0]:.1f} - {f.toks_per_s[1]:.1f}")
    lines += [
        "",
        f"  Total data:\t{binary_bytes(f.total_bytes)}",
        f"  Size/request:\t{binary_bytes(f.size_per_request)}",
        f"  Size/sec:\t{binary_bytes(f.size_per_s)}",
        "",
        "Response time histogram:",
        *_histogram(f.histogram),
        "",
        "Response time distribution:",
        *(f"  {p:.2f}% in {_four(v)} secs" for p, v in f.percentiles),
        "",
        "",
        "Details (average, fastest, slowest):",
        "  DNS+dialup:\t" + ", ".join(f"{_four(v)} secs" for v in f.dialup_s or (None, None, None)),
        "",
        "Status code distribution:",
        *(f"  [{code}] {count} responses" for code, count in f.status_codes),
    ]
    if f.errors:
        lines += ["", "Error distribution:", *(f"  [{count}] {text}" for text, count in f.errors.items())]
    return "\n".join(lines)


def difference(figures: OhaFigures, ours: float | None) -> str:
    """Our success rate beside oha's, and why they differ."""
    text = f"Success rate here: {_percent(ours)}%; in oha's form: {_percent(figures.success_rate)}%."
    if figures.counted_as_success:
        parts = ", ".join(f"{n} {outcome}" for outcome, n in figures.counted_as_success.items())
        text += f" oha takes any HTTP status for a success, so also {parts}."
    if figures.left_out:
        parts = ", ".join(f"{n} {outcome}" for outcome, n in figures.left_out.items())
        text += f" oha leaves out what it did not send or cut off itself: {parts}."
    if not figures.counted_as_success and not figures.left_out:
        text += " Both count the same requests."
    return text


def _histogram(bins: tuple[tuple[float, int], ...]) -> list[str]:
    """`  30.364 [38]  |■■■`: labels as wide as the largest, counts flush, bars to scale."""
    if not bins:
        return []
    most = max(count for _, count in bins)
    width = 4 + max(len(str(int(abs(label)))) for label, _ in bins)
    lines = []
    for label, count in bins:
        pad = " " * (len(str(most)) - len(str(count)))
        lines.append(f"  {label:>{width}.3f} [{count}]{pad} |{'■' * (BAR * count // most)}")
    return lines


def _four(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.4f}"


def _percent(ratio: float | None) -> str:
    return "NaN" if ratio is None else f"{ratio * 100:.2f}"
