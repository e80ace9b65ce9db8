"""The bill, against sums done on paper."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import runs
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.bill import oscillations
from raybench.analysis.figures import Bill
from raybench.analysis.observed import Event
from raybench.analysis.question import Capacity
from raybench.cli.main import main
from raybench.cli.reporting import report
from raybench.report import compared, render
from raybench.report.bill import amount
from raybench.rundir import open_run
from raybench.schema import EventKind, LoadKind, Outcome, Schedule, Timeline

E = EventKind


def state(t_s: float, replica: str, state: str) -> dict[str, Any]:
    return runs.event(t_s, E.REPLICA_STATE, replica, state=state)


def life(replica: str, running_s: float, stopping_s: float) -> list[dict[str, Any]]:
    return [state(running_s, replica, "running"), state(stopping_s, replica, "stopping")]


def planned(*stages: tuple[float, float, float]) -> list[dict[str, Any]]:
    """(start, duration, per second) of constant stages, as rows of the schedule."""
    rows: list[dict[str, Any]] = []
    for number, (start, duration, rate) in enumerate(stages):
        for i in range(round(duration * rate)):
            at = {Schedule.scheduled_ns: runs.ns(start + i / rate), Schedule.stage: number}
            rows.append({Schedule.request_id: len(rows), **at})
    return rows


def scenario(*durations: float, process: str = "constant", **deployment: Any) -> dict[str, Any]:
    stages = [{"duration": d, "arrival": {"process": process}} for d in durations]
    return {"deployment": deployment, "load": {"stages": stages}}


def summary(path: Path, question: Question | None = None, **tables: Any) -> Summary:
    requests = tables.pop("requests", [])
    return summarise(open_run(runs.write(path, requests, **tables)), question or Question())


def bill(path: Path, question: Question | None = None, **tables: Any) -> Bill:
    found = summary(path, question, **tables).bill
    assert found is not None
    return found


HAND_MADE: dict[str, Any] = {
    "schedule": planned((0, 10, 1), (10, 10, 5), (20, 10, 4)),
    "scenario": scenario(10.0, 10.0, 10.0),
    "events": [
        *life("a", 0.0, 34.0),
        *life("b", 14.0, 31.0),
        *life("c", 18.0, 31.0),
        runs.event(36.0, E.RUN_ENDED),
    ],
}
"""What two requests per second and replica need: 1 from 0, 3 from 10 (5/2), 2 from 20 (4/2), 0 from 30.
What there was: 1 from 0, 2 from 14, 3 from 18, 1 from 31, 0 from 34."""


def test_over_and_under_as_on_paper(tmp_path: Path) -> None:
    question = Question(capacity=Capacity(2.0, "run one-replica"))
    p = bill(tmp_path / "r", question, **HAND_MADE).provisioning
    assert p is not None
    assert p.needed == ((0.0, 1), (10.0, 3), (20.0, 2), (30.0, 0))
    # Under: two too few from 10 to 14, one from 14 to 18. Over: one from 20 to 30, three to 31, one to 34.
    assert (p.under_s, p.under_area) == (8.0, 2 * 4 + 1 * 4)
    assert (p.over_s, p.over_area) == (14.0, 1 * 10 + 3 * 1 + 1 * 3)
    assert p.capacity.source == "run one-replica"


def test_without_a_capacity_nothing_is_said(tmp_path: Path) -> None:
    s = summary(tmp_path / "r", **HAND_MADE)
    assert s.bill is not None
    assert s.bill.provisioning is None
    assert "provisioned" not in render(s)
    assert json.loads(render(s, "json"))["bill"]["provisioning"] is None


def test_a_plan_without_instants_needs_nobody_knows_how_many(tmp_path: Path) -> None:
    question = Question(capacity=Capacity(2.0, "x"))
    closed = HAND_MADE | {"load_kind": LoadKind.CLOSED}
    assert bill(tmp_path / "closed", question, **closed).provisioning is None
    later_turn = {Schedule.request_id: len(HAND_MADE["schedule"]), Schedule.scheduled_ns: None}
    turns = HAND_MADE | {"schedule": [*HAND_MADE["schedule"], later_turn]}
    assert bill(tmp_path / "turns", question, **turns).provisioning is None


def test_a_load_that_changes_all_the_time_is_cut_into_pieces(tmp_path: Path) -> None:
    """2 then 12 requests in the halves of one stage of 20 s: 0.2/s and 1.2/s, one and two replicas of 1/s."""
    times = [0.0, 9.0, *(10 + i * 0.5 for i in range(12))]
    rows = [{Schedule.request_id: i, Schedule.scheduled_ns: runs.ns(t)} for i, t in enumerate(times)]
    events = [*life("a", 0.0, 20.0), runs.event(20.0, E.RUN_ENDED)]
    p = bill(
        tmp_path / "r",
        Question(capacity=Capacity(1.0, "x")),
        schedule=rows,
        scenario=scenario(20.0, process="ramp"),
        events=events,
    ).provisioning
    assert p is not None
    assert p.needed == ((0.0, 1), (10.0, 2), (20.0, 0))
    assert (p.under_s, p.over_s) == (10.0, 0.0)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=6), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_over_and_under_second_by_second(
    tmp_path_factory: pytest.TempPathFactory, stretches: list[tuple[int, int]], rate: int
) -> None:
    """Samples of 0 to 3 replicas against a steady load of 10 s that one to five replicas of 2/s sustain."""
    starts = [sum(length for length, _ in stretches[:i]) for i in range(len(stretches) + 1)]
    counts = [*(n for _, n in stretches), 0]
    rows = [
        {Timeline.t_ns: runs.ns(t), Timeline.replicas_available: n}
        for t, n in zip(starts, counts, strict=True)
    ]
    p = bill(
        tmp_path_factory.mktemp("p") / "r",
        Question(capacity=Capacity(2.0, "x")),
        timeline=rows,
        schedule=planned((0, 10, rate)),
        scenario=scenario(10.0),
    ).provisioning
    assert p is not None
    gaps = []
    for second in range(starts[-1]):
        there = counts[max(i for i, t in enumerate(starts) if t <= second)]
        gaps.append(there - (-(-rate // 2) if second < 10 else 0))
    assert p.over_area == sum(g for g in gaps if g > 0)
    assert p.under_area == -sum(g for g in gaps if g < 0)
    assert (p.over_s, p.under_s) == (sum(g > 0 for g in gaps), sum(g < 0 for g in gaps))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
def test_a_capacity_is_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="a positive one is right"):
        Capacity(bad, "x")


@pytest.mark.parametrize("bad", [-0.01, float("inf"), float("nan")])
def test_a_price_is_a_number_from_0_up(bad: float) -> None:
    with pytest.raises(ValueError, match="a number from 0 up is right"):
        Question(price_per_replica_hour=bad)


# --- money ---------------------------------------------------------------------------------------------


def answered() -> list[dict[str, Any]]:
    """Ten good answers of 100 tokens, one that does not say, one too slow, one that failed with tokens."""
    rows = [runs.ok(i, anchor_s=i, first_s=i + 0.5, done_s=i + 1, tokens=100) for i in range(10)]
    rows.append(runs.ok(10, anchor_s=10, first_s=10.5, done_s=11))
    rows.append(runs.ok(11, anchor_s=11, first_s=14.5, done_s=15, tokens=1000))
    rows.append(runs.failed(12, Outcome.STREAM_CUT, "cut", anchor_s=12, done_s=13, tokens=7))
    return rows


PAID: dict[str, Any] = {
    "scenario": scenario(20.0, replica={"gpus": 2.0}) | {"objectives": {"ttft_p99": 1.0}},
    "events": [state(0.0, "a", "running"), state(0.0, "b", "running"), runs.event(1800.0, E.RUN_ENDED)],
}


def test_the_sums(tmp_path: Path) -> None:
    """Two replicas of two GPUs for half an hour at 3 an hour: 1 replica-hour each way of counting."""
    b = bill(tmp_path / "r", Question(price_per_replica_hour=3.0), requests=answered(), **PAID)
    assert (b.replica_seconds, b.gpu_hours, b.cost) == (3600.0, 2.0, 3.0)
    assert (b.output_tokens, b.without_usage, b.good) == (2007, 1, 11)
    assert b.cost_per_million_output_tokens == pytest.approx(3.0 / 0.002007)
    assert b.cost_per_good_request == pytest.approx(3.0 / 11)


def test_the_bill_is_of_the_whole_run_whatever_is_selected(tmp_path: Path) -> None:
    whole = bill(tmp_path / "a", Question(price_per_replica_hour=3.0), requests=answered(), **PAID)
    question = Question(price_per_replica_hour=3.0, window=(2.0, 4.0))
    s = summary(tmp_path / "b", question, requests=answered(), **PAID)
    assert s.bill == whole
    assert s.throughput.output_tokens == 200  # while the figures of the window are the window's


def test_the_whole_run_counts_tokens_and_good_requests_as_the_rest_of_the_report(tmp_path: Path) -> None:
    s = summary(tmp_path / "r", requests=answered(), **PAID)
    assert s.bill is not None
    assert (s.bill.output_tokens, s.bill.good) == (s.throughput.output_tokens, s.goodput.good)
    assert s.bill.without_usage == s.throughput.without_usage


def test_without_a_price_there_is_no_money(tmp_path: Path) -> None:
    s = summary(tmp_path / "r", requests=answered(), **PAID)
    assert s.bill is not None
    assert (s.bill.cost, s.bill.cost_per_good_request, s.bill.cost_per_million_output_tokens) == (None,) * 3
    text = render(s)
    assert "GPU-hours        2 (2 a replica)" in text
    assert "cost" not in text.split("Bill of the whole run")[1]


def test_all_forms_say_the_same(tmp_path: Path) -> None:
    question = Question(price_per_replica_hour=3.0, capacity=Capacity(0.5, "run one-replica"))
    s = summary(tmp_path / "r", question, requests=answered(), **PAID)
    as_json = json.loads(render(s, "json"))["bill"]
    assert as_json["cost"] == 3.0
    for form in ("text", "markdown"):
        said = render(s, form)
        for wanted in (
            "3 at 3 a replica-hour",
            "1,494.77 (2,007 output tokens; 1 answers",
            "0.2727 (11 good",
        ):
            assert wanted in said, (form, wanted)
        assert "0.500/s a replica, run one-replica" in said or "0.5/s a replica, run one-replica" in said


def test_nothing_delivered_has_no_price_each(tmp_path: Path) -> None:
    b = bill(tmp_path / "r", Question(price_per_replica_hour=3.0), **PAID)
    assert (b.cost, b.cost_per_good_request, b.cost_per_million_output_tokens) == (3.0, None, None)


def test_a_target_without_a_deployment_has_no_bill(tmp_path: Path) -> None:
    assert summary(tmp_path / "r", requests=answered()).bill is None


# --- waiting, and going back and forth -----------------------------------------------------------------


def test_queue_area(tmp_path: Path) -> None:
    """Nothing known to 1 s and from 3 to 5 s; 0 waiting to 2 s, 4 to 3 s, and 2 to the end at 8 s."""
    waiting = {1.0: 0.0, 2.0: 4.0, 3.0: None, 5.0: 2.0}
    rows = [
        {Timeline.t_ns: runs.ns(t), Timeline.waiting: w, Timeline.replicas_available: 1}
        for t, w in waiting.items()
    ]
    b = bill(tmp_path / "r", timeline=rows, events=[runs.event(8.0, E.RUN_ENDED)])
    assert b.queue_area == 4 * 1 + 2 * 3
    assert b.queue_unknown_s == 1 + 2


def test_what_waited_before_the_load_is_left_out(tmp_path: Path) -> None:
    rows = [
        {Timeline.t_ns: runs.ns(t), Timeline.waiting: 3.0, Timeline.replicas_available: 1}
        for t in (-4.0, 6.0)
    ]
    b = bill(tmp_path / "r", timeline=rows)
    assert (b.queue_area, b.queue_unknown_s) == (18.0, 0.0)


def step(t_s: float, before: int, after: int) -> Event:
    return Event(round(t_s * 1e9), E.DECISION, "queue_depth", {"from": before, "to": after})


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ([(0, 1), (10, 2), (20, 1), (30, 2)], 1),  # 10 up, 20 down, 30 up: 20 s
        ([(0, 1), (10, 2), (20, 1), (30.1, 2)], 0),  # a tenth of a second too long
        ([(0, 1), (10, 2), (20, 1), (25, 2), (30, 1), (40, 2)], 2),  # both second ups undo a down
        ([(0, 1), (5, 2), (10, 3), (15, 2), (20, 1), (25, 2)], 1),  # from the last up before the downs
        ([(0, 3), (10, 2), (20, 1), (30, 2)], 0),  # down, down, up: no second up
        ([(0, 1)], 0),
    ],
)
def test_oscillations(targets: list[tuple[float, int]], found: int) -> None:
    steps = [step(t, a, b) for (_, a), (t, b) in pairwise(targets)]
    assert oscillations(steps, within_s=20.0) == found


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=30), st.integers(1, 40))
def test_oscillations_by_looking_at_every_step_up(steps: list[tuple[int, bool]], within: int) -> None:
    t, events = 0, []
    for gap, up in steps:
        t += gap
        events.append(step(t, 5, 6 if up else 4))
    ups = [e.detail["to"] == 6 for e in events]
    want = 0
    for i, up in enumerate(ups):
        if not (up and i and not ups[i - 1]):
            continue  # only a step up that follows a step down
        earlier = [j for j in range(i) if ups[j]]
        want += bool(earlier) and events[i].t_ns - events[earlier[-1]].t_ns <= within * 1e9
    assert oscillations(events, float(within)) == want


def test_the_price_is_an_option(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "r", answered(), **PAID)

    def analyze(price: str) -> Result:
        return CliRunner().invoke(
            main, ["analyze", str(path), "--format", "json", "--price-per-replica-hour", price]
        )

    assert json.loads(analyze("3").output)["bill"]["cost"] == 3.0
    for bad in ("nan", "-1", "inf", "cheap"):
        result = analyze(bad)
        assert result.exit_code == 2
        assert "--price-per-replica-hour" in result.output


def test_a_run_that_has_just_ended_is_billed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs.write(tmp_path / "r", answered(), **PAID)
    report(path, Question(price_per_replica_hour=3.0), "text")
    assert "3 at 3 a replica-hour" in capsys.readouterr().out
    assert "3 at 3 a replica-hour" in (path / "report.txt").read_text(encoding="utf-8")
    assert "--price-per-replica-hour" in CliRunner().invoke(main, ["run", "--help"]).output


def test_runs_side_by_side(tmp_path: Path) -> None:
    question = Question(price_per_replica_hour=3.0)
    paid = summary(tmp_path / "a", question, requests=answered(), **PAID)
    free = summary(tmp_path / "b", requests=answered())
    lines = compared.render([("paid", paid), ("free", free)]).splitlines()
    rows = {" ".join(line.split()[:-2]): line.split()[-2:] for line in lines if line.strip()}
    assert rows["cost"] == ["3", "-"]
    assert rows["a million tokens"] == ["1,494.77", "-"]
    assert rows["oscillations"] == ["0", "-"]
    assert "a good request" not in compared.render([("free", free), ("too", free)])


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (None, "-"), (0.0, "0.00"), (2.5, "2.5"), (3.0, "3"), (1494.766, "1,494.77"), (99.996, "100.00"),
        (12.345678, "12.35"), (0.0612345, "0.06123"), (0.00001234567, "0.00001235"), (1e-15, "0.00"),
    ],
)  # fmt: skip
def test_money_as_people_write_it(x: float | None, said: str) -> None:
    assert amount(x) == said
