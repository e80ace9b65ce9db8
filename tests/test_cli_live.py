"""What a run says while it goes: problems once each, and a summary of every stretch of a long one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raybench.cli.live import Live, Summaries
from raybench.fleet.conductor import Snapshot

HOUR = 3600.0


def at(t_s: float, length_s: float, **more: object) -> Snapshot:
    made = Snapshot("load", t_s=t_s, left_s=max(0.0, length_s - t_s), offered=int(t_s * 10))
    return replace(made, sent=int(t_s * 10) - 5, counts={"ok": int(t_s * 9), "timeout": int(t_s)}, **more)  # type: ignore[arg-type]


def lines(length_s: float, step_s: float) -> list[str]:
    summaries = Summaries()
    times = [i * step_s for i in range(int(length_s / step_s) + 1)]
    return [line for t in times if (line := summaries(at(t, length_s))) is not None]


def test_a_day_has_a_summary_an_hour_and_ten_minutes_one_a_minute() -> None:
    assert len(lines(24 * HOUR, 60.0)) == 24
    assert len(lines(600.0, 0.5)) == 10
    assert lines(59.0, 0.5) == []


def test_a_summary_is_about_its_own_stretch() -> None:
    _, second = lines(48 * HOUR, 2 * HOUR)[:2]
    assert second.startswith("summary of 2:00:00 to 4:00:00: offered 72000 | sent 72000 | failed 7200 |")


def test_a_problem_is_shown_at_once_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Live() as live:
        live(at(1.0, 600.0))
        live(at(1.5, 600.0, problems=("the disk is full",)))
        live(at(2.0, 600.0, problems=("the disk is full", "the monitor died")))
        live(Snapshot("ending", problems=("the disk is full", "the monitor died")))
    shown = capsys.readouterr().err.splitlines()
    assert [line for line in shown if line.startswith("problem:")] == [
        "problem: the disk is full",
        "problem: the monitor died",
    ]
    assert shown.index("problem: the disk is full") == 1, "after the first line, before any other"


def test_a_day_does_not_fill_its_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("raybench.cli.live.time.monotonic", lambda: now[0])
    with Live() as live:
        for second in range(0, 600, 1):
            now[0] = float(second)
            live(at(float(second), 24 * HOUR))
        long = len(capsys.readouterr().err.splitlines())
        for second in range(600, 1200, 1):
            now[0] = float(second)
            live(at(float(second), 1200.0))
    assert long == 10
    assert len(capsys.readouterr().err.splitlines()) >= 115
