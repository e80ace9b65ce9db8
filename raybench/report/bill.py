"""The bill: what the run cost, and what went to waste."""

from __future__ import annotations

from raybench.analysis.figures import Bill, Provisioning, Summary
from raybench.report.blocks import Pairs, Section
from raybench.report.units import NOTHING, duration, number


def section(summary: Summary) -> Section | None:
    b = summary.bill
    if b is None:
        return None
    rows = [("replica-seconds", f"{number(b.replica_seconds)}, start-up and drain included")]
    if b.gpu_hours is not None:
        rows.append(("GPU-hours", f"{number(b.gpu_hours)} ({number(b.gpus_per_replica)} a replica)"))
    rows += _money(b)
    rows.append(
        (
            "oscillations",
            f"{number(b.oscillations)} (up, down and up again within {duration(b.oscillation_within_s)})",
        )
    )
    if b.queue_area is not None:
        unknown = f", {duration(b.queue_unknown_s)} unknown" if b.queue_unknown_s else ""
        rows.append(("queue area", f"{number(b.queue_area)} request-seconds of waiting{unknown}"))
    if b.provisioning is not None:
        rows += _provisioning(b.provisioning)
    return Section("Bill of the whole run", (Pairs(tuple(rows)),))


def _money(b: Bill) -> list[tuple[str, str]]:
    """Nothing without a price."""
    if b.price_per_replica_hour is None:
        return []
    unsaid = f"; {number(b.without_usage)} answers do not say how many they had" if b.without_usage else ""
    return [
        ("cost", f"{amount(b.cost)} at {amount(b.price_per_replica_hour)} a replica-hour"),
        (
            "a million tokens",
            f"{amount(b.cost_per_million_output_tokens)} ({number(b.output_tokens)} output tokens{unsaid})",
        ),
        ("a good request", f"{amount(b.cost_per_good_request)} ({number(b.good)} good requests)"),
    ]


def amount(x: float | None) -> str:
    """Money: four digits, or cents above a hundred; never in powers of ten."""
    if x is None:
        return NOTHING
    rounded = float(f"{x:.4g}")
    text = f"{rounded:.12f}".rstrip("0").rstrip(".")
    return f"{x:,.2f}" if abs(rounded) >= 100 or text in ("0", "-0") else text


def _provisioning(p: Provisioning) -> list[tuple[str, str]]:
    basis = f"{number(p.capacity.requests_per_s)}/s a replica, {p.capacity.source}"
    return [
        ("one replica", basis),
        ("over-provisioned", f"{duration(p.over_s)}, {number(p.over_area)} replica-seconds"),
        ("under-provisioned", f"{duration(p.under_s)}, {number(p.under_area)} replica-seconds"),
    ]
