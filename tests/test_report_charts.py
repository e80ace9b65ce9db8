"""Charts: their series against independent arithmetic, and every drawing in every form."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import charted
import numpy as np
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.analysis import Question
from raybench.analysis.curves import BUCKETS, MOST, curve, known, trailing_mean, width_s
from raybench.analysis.requests_over_time import PERCENTS
from raybench.analysis.waterfall import MOST_BARS
from raybench.report.charts import charts, forms, style
from raybench.schema import Outcome, Requests, Timeline


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return charted.scaled(tmp_path_factory.mktemp("charts") / "run")


# --- curves ------------------------------------------------------------------------------------------


def test_trailing_mean_of_a_step_is_the_area_under_it() -> None:
    t, v = np.arange(11.0), np.array([0.0] * 5 + [10.0] * 6)
    mean = trailing_mean(t, v, 4.0)
    assert math.isnan(mean[0])  # nothing is known before the first sample
    assert mean[5] == 0
    assert mean[[6, 7, 8, 9]].tolist() == [2.5, 5.0, 7.5, 10.0]


def test_trailing_mean_leaves_out_what_was_not_known() -> None:
    t, v = np.arange(6.0), np.array([2.0, math.nan, math.nan, 4.0, 4.0, 4.0])
    mean = trailing_mean(t, v, 3.0)
    assert mean[1] == 2.0 and mean[3] == 2.0  # the one known second in three
    assert math.isnan(trailing_mean(t, v, 1.0)[3])
    assert mean[5] == 4.0


@given(
    st.lists(st.tuples(st.integers(1, 30), st.one_of(st.none(), st.integers(0, 9))), min_size=2, max_size=20),
    st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_trailing_mean_equals_a_sum_over_tenths_of_a_second(
    samples: list[tuple[int, int | None]], window: int
) -> None:
    at = np.cumsum([step for step, _ in samples])  # in tenths, so that the sum below is exact
    values = known([v for _, v in samples])
    steps = np.diff(at)
    longest = 3 * float(np.median(steps))
    made = trailing_mean(at / 10, values, window / 10)
    for i in range(len(at)):
        held = [
            values[j]
            for cell in range(at[i] - window, at[i])
            for j in range(i)
            if at[j] <= cell < min(at[j + 1], at[j] + longest) and not math.isnan(values[j])
        ]
        if longest == int(longest):
            assert made[i] == pytest.approx(np.mean(held) if held else math.nan, nan_ok=True)


@given(st.integers(MOST + 1, 6000), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_a_reduced_curve_loses_no_peak_and_keeps_the_mean(n: int, random: Any) -> None:
    t = np.arange(n) * 1.0
    v = np.array([random.choice([0.0, 1.0, 50.0, math.nan]) for _ in range(n)])
    c = curve(t, v)
    assert c is not None and len(c.t_s) == BUCKETS and c.every_s is not None
    assert max(x for x in c.high if x is not None) == np.nanmax(v) == c.peak.value
    assert min(x for x in c.low if x is not None) == np.nanmin(v)
    assert c.samples == int((~np.isnan(v)).sum())
    where = np.minimum((t / c.every_s).astype(int), BUCKETS - 1)
    for k in (0, 7, BUCKETS - 1):
        inside = v[(where == k) & ~np.isnan(v)]
        assert c.value[k] == (pytest.approx(inside.mean()) if len(inside) else None)


def test_a_pause_interrupts_a_curve_and_nothing_known_makes_none() -> None:
    c = curve(np.array([0.0, 1.0, 2.0, 30.0, 31.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert c is not None and c.value == (1.0, 2.0, 3.0, None, 4.0, 5.0)
    assert curve(np.array([0.0]), np.array([math.nan])) is None
    assert curve(np.array([]), np.array([])) is None


def test_bucket_widths_are_round_and_hold_about_four() -> None:
    assert width_s(60.0, 240) == 1
    assert width_s(2400.0, 160) == 60
    assert width_s(86400.0, 10**7) == 300
    assert width_s(0.0, 1) == 0.1


# --- series of requests ------------------------------------------------------------------------------


def _rows() -> list[dict[str, Any]]:
    return charted.scaling_rows()


def _s(row: dict[str, Any], name: str) -> float:
    return float(row[name]) / 1e9


def test_qps_counts_the_three_minutes_before_each_instant(tmp_path: Path) -> None:
    rows = [
        runs.ok(i, anchor_s=i * 2.0, first_s=i * 2.0 + 0.5, done_s=i * 2.0 + 1.0, tokens=3)
        for i in range(150)
    ]
    rows[7] = runs.failed(7, Outcome.HTTP_ERROR, "500", anchor_s=14.0, done_s=14.5)
    _, s = charted.read(runs.write(tmp_path / "r", rows))
    assert s.rates is not None
    for t, sent, ok in zip(s.rates.qps_t_s, s.rates.qps_sent, s.rates.qps_ok, strict=True):
        window = [r for r in rows if t - 180 < _s(r, Requests.sent_ns) <= t]
        ended = [r for r in rows if t - 180 < _s(r, Requests.done_ns) <= t and r is not rows[7]]
        assert sent == pytest.approx(len(window) / 180) and ok == pytest.approx(len(ended) / 180)
    assert s.rates.peak_qps.value == max(s.rates.qps_sent) == pytest.approx(0.5)


def test_rates_and_tokens_add_up_to_what_there_was(scaled: Any) -> None:
    _, s = scaled
    r, rows = s.rates, _rows()
    assert sum(r.sent) * r.every_s == pytest.approx(80)
    assert sum(r.ok) * r.every_s == pytest.approx(78)
    assert sum(r.failed) * r.every_s == pytest.approx(2)
    assert sum(r.tokens) * r.every_s == pytest.approx(r.output_tokens) == pytest.approx(78 * 41)
    ok = [x for x in rows if x.get(Requests.outcome) in (None, Outcome.OK)]
    for start, tokens, sent in zip(r.t_s, r.tokens, r.sent, strict=True):
        end, area = start + r.every_s, 0.0
        for x in ok:
            a, b = _s(x, Requests.first_token_ns), _s(x, Requests.last_token_ns)
            area += 41 * max(0.0, min(b, end) - max(a, start)) / (b - a)
        assert tokens == pytest.approx(area / r.every_s, abs=1e-6)
        assert sent * r.every_s == pytest.approx(
            sum(start <= _s(x, Requests.sent_ns) < end for x in rows), abs=1e-9
        )


def test_an_answer_whose_tokens_came_at_once_counts_whole(tmp_path: Path) -> None:
    _, s = charted.edge(tmp_path / "r", "at once")
    assert s.rates is not None
    assert sum(s.rates.tokens) * s.rates.every_s == pytest.approx(5)


def test_few_requests_are_dots_with_what_became_of_each(scaled: Any) -> None:
    _, s = scaled
    assert s.e2e.n == 79 and s.e2e.given_up == 1 and s.e2e.failed == 1 and not s.e2e.buckets
    by_id = {d.request_id: d for d in s.e2e.dots}
    for i, row in enumerate(_rows()):
        if i not in (30, 31):
            assert by_id[i].value_s == pytest.approx(_s(row, Requests.done_ns) - _s(row, Requests.anchor_ns))
            assert not by_id[i].at_least
    assert by_id[30].at_least and by_id[30].value_s == 20.0
    assert [(m.request_id, m.outcome, m.error) for m in s.e2e.misses] == [(31, "stream_cut", "went away")]


def test_many_requests_are_exact_percentiles_of_stretches_of_time(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    took = random.lognormal(0, 1, MOST + 500)
    rows = [
        runs.ok(i, anchor_s=i * 0.1, first_s=i * 0.1 + t / 2, done_s=i * 0.1 + t) for i, t in enumerate(took)
    ]
    for i in range(100, 105):
        rows[i] = runs.failed(i, Outcome.TIMEOUT, "late", anchor_s=i * 0.1, done_s=i * 0.1 + 300.0)
    summary, s = charted.read(runs.write(tmp_path / "r", rows))
    assert s.e2e is not None and not s.e2e.dots and s.e2e.every_s is not None
    assert sum(b.n for b in s.e2e.buckets) == len(rows)
    for b in s.e2e.buckets:
        inside = [
            300.0 if 100 <= i < 105 else t
            for i, t in enumerate(took)
            if b.t_s - 1e-6 <= i * 0.1 < b.t_s + s.e2e.every_s - 1e-6
        ]
        values = sorted(inside)
        ranks = [max(math.ceil(p / 100 * len(values)), 1) - 1 for p in PERCENTS] + [len(values) - 1]
        assert b.values_s == pytest.approx([values[r] for r in ranks], abs=1e-8)
        assert (b.at_least is not None) == (300.0 in [values[r] for r in ranks])
    assert s.e2e_ecdf is not None and not s.e2e_ecdf.exact and len(s.e2e_ecdf.share) <= 1000
    assert s.e2e_ecdf.share[-1] == pytest.approx((len(rows) - 5) / len(rows))
    measured = np.sort([t for i, t in enumerate(took) if not 100 <= i < 105])
    for value, share in list(zip(s.e2e_ecdf.value_s, s.e2e_ecdf.share, strict=True))[::37]:
        assert share == pytest.approx(np.searchsorted(measured, value + 1e-8) / len(rows))
    drawn = {c.name: c for c in charts(summary, s)}
    assert "exact percentiles of every" in drawn["e2e-over-time"].text
    _is_svg(forms.svg(drawn["e2e-over-time"]))


@pytest.mark.parametrize("question", [Question(), Question(window=(10.0, 30.0))])
def test_distributions_are_those_of_the_report(tmp_path: Path, question: Question) -> None:
    summary, s = charted.scaled(tmp_path / "r", question)
    found = summary.latencies
    for ecdf, of in ((s.ttft_ecdf, found.ttft_scheduled), (s.e2e_ecdf, found.e2e_scheduled)):
        assert ecdf is not None and of is not None
        assert (ecdf.n, ecdf.given_up) == (of.n, of.censored)
        for p in of.percentiles:
            points = zip(ecdf.value_s, ecdf.share, strict=True)
            reached = next((v for v, q in points if q * 100 >= p.percent - 1e-9), None)
            assert p.value.censored if reached is None else reached == pytest.approx(p.value.value)
    assert s.selected_s == (None if question.window is None else (10.0, 30.0))


# --- series of the deployment ------------------------------------------------------------------------


def test_the_deployment_is_drawn_as_it_was_sampled(scaled: Any) -> None:
    _, s = scaled
    samples = charted.timeline()
    assert s.span_s == (-2.0, 60.0) and s.samples == len(samples)
    depth = dict(zip(s.depth.t_s, s.depth.value, strict=True))
    assert all(depth[row[Timeline.t_ns] / 1e9] == row[Timeline.queue_depth] for row in samples)
    r = s.replicas
    assert r.most_available == 2
    for row in samples:
        t = row[Timeline.t_ns] / 1e9
        held = max(i for i, at in enumerate(r.t_s) if at <= t)
        assert r.available[held] == row[Timeline.replicas_available]
        assert r.starting[held] == row[Timeline.replicas_starting]
        assert r.stopping[held] == row[Timeline.replicas_stopping]
        assert r.target[held] == row[Timeline.replicas_target]
    assert len(r.t_s) < 12  # changes, not samples
    i = s.average_depth.t_s.index(20.0)
    window = [depth[float(t)] for t in range(15, 20)]
    assert s.average_depth.value[i] == pytest.approx(sum(window) / 5)


def test_a_waterfall_holds_the_requests_under_way(scaled: Any) -> None:
    _, s = scaled
    assert s.steps_up == 2 and [w.step.to_replicas for w in s.waterfalls] == [1, 2]
    w = s.waterfalls[1]
    assert (w.from_s, w.running_s, w.to_s) == (5.0, 16.0, 22.0)
    inside = [r for r in _rows() if _s(r, Requests.anchor_ns) <= 22.0 and _s(r, Requests.done_ns) >= 5.0]
    assert w.requests == len(inside) == len(w.bars)
    assert [b.request_id for b in w.bars] == [r[Requests.request_id] for r in inside]
    assert next(b for b in w.bars if b.request_id == 30).first_s is None


def test_a_crowded_waterfall_keeps_every_so_many_th_request(tmp_path: Path) -> None:
    rows = [runs.ok(i, anchor_s=i * 0.01, first_s=i * 0.01 + 1, done_s=i * 0.01 + 2) for i in range(1500)]
    run = runs.write(
        tmp_path / "r", rows, timeline=charted.timeline(), events=charted.events(), batch_rows=200
    )
    _, s = charted.read(run)
    w = s.waterfalls[1]
    assert w.requests > MOST_BARS >= len(w.bars) > MOST_BARS // 2
    assert all(b.request_id % w.every == 0 for b in w.bars)
    expected = [i for i in range(0, 1500, w.every) if i * 0.01 <= w.to_s and i * 0.01 + 2 >= w.from_s]
    assert [b.request_id for b in w.bars] == expected


def test_hours_of_deployment_before_the_load_do_not_squeeze_it(tmp_path: Path) -> None:
    early = [{Timeline.t_ns: runs.ns(-3600.0 + 10 * i), Timeline.replicas_available: 1} for i in range(360)]
    rows = [runs.ok(0, anchor_s=0.0, first_s=1.0, done_s=50.0)]
    _, s = charted.read(runs.write(tmp_path / "r", rows, timeline=early))
    assert s.span_s == (-10.0, 50.0)
    assert s.replicas is not None and s.replicas.t_s[0] == -10.0 and s.replicas.available[0] == 1


# --- drawings ----------------------------------------------------------------------------------------


def _is_svg(text: str) -> ET.Element:
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    return root


def test_every_chart_of_a_scaling_run_is_drawn(scaled: Any) -> None:
    made = charts(*scaled)
    names = [c.name for c in made]
    assert names[:4] == ["queue-depth", "average-queue-depth", "qps", "replicas"]  # the published four
    assert len(set(names)) == len(names)
    assert all(c.drawn for c in made)
    for c in made:
        root = _is_svg(forms.svg(c))
        assert len(list(root.iter())) > 30, c.name
        text = " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))
        assert c.title in text
        assert forms.png(c, scale=0.5).startswith(b"\x89PNG")


def test_the_texts_tell_the_key_figures(scaled: Any) -> None:
    told = {c.name: c.text for c in charts(*scaled)}
    assert "It peaks at 14 at 12.00 s" in told["queue-depth"]
    assert "5 for one more, 1 for one fewer" in told["queue-depth"]
    assert "0 to 1 at 0.00 s; 1 to 2 at 10.00 s; 2 to 1 at 50.00 s" in told["replicas"]
    assert "1 given up" in told["e2e-over-time"] and "1 that failed" in told["e2e-over-time"]
    assert "able to serve at 16.00 s" in told["waterfall-2"]
    assert "3,198 in all" in told["tokens"]


@pytest.mark.parametrize("name", charted.EDGES)
def test_what_cannot_be_drawn_says_why(tmp_path: Path, name: str) -> None:
    summary, s = charted.edge(tmp_path / "r", name)
    made = {c.name: c for c in charts(summary, s)}
    for c in made.values():
        assert c.text
        if c.drawn:
            _is_svg(forms.svg(c))
        else:
            assert c.text.startswith("Not drawn: ") and c.text.endswith(".")
    if name == "closed loop":
        assert "no schedule" in made["lateness-over-time"].text
    if name == "target without timeline":
        assert "did not deploy" in made["replicas"].text and made["qps"].drawn
    if name == "all failed":
        assert not made["distributions"].drawn and made["ttft-over-time"].drawn


def test_rows_shared_by_layers_are_in_the_specification_once(scaled: Any) -> None:
    made = {c.name: c for c in charts(*scaled)}
    spec = forms.specification(made["replicas"])
    assert len({layer["data"]["name"] for layer in spec["layer"]}) == len(spec["datasets"])
    assert all("values" not in layer["data"] for layer in spec["layer"])
    assert any(layer.get("name") == style.HOVER for layer in spec["layer"])
    still = forms._still(made["replicas"], titled=True)
    assert not any(layer.get("name") == style.HOVER for layer in still["layer"])


def test_charts_are_written_as_png_and_svg(scaled: Any, tmp_path: Path) -> None:
    made = [c for c in charts(*scaled) if c.name in ("qps", "replicas")]
    written = forms.write([*made, style.none("x", "y", "z", "nothing.")], tmp_path / "new" / "charts")
    assert [p.name for p in written] == ["qps.png", "qps.svg", "replicas.png", "replicas.svg"]
    assert all(p.stat().st_size > 1000 for p in written)


def test_colours_stand_out_on_white_and_on_the_dark_page() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for colour in (*style.PALETTE, style.GREY):
        assert contrast(colour, "#ffffff") >= 3 and contrast(colour, "#15181b") >= 3, colour


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [((-7.0, 64.0), 0.0, 60.0), ((0.0, 2400.0), 0.0, 2400.0), ((5.0, 22.0), 5.0, 20.0)],
)
def test_ticks_are_round_and_within_the_axis(span: tuple[float, float], first: float, last: float) -> None:
    ticks = style._ticks(*span)
    assert ticks[0] == first and ticks[-1] == last and len(ticks) <= style.TICKS + 1


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        ((-7.0, 64.0), {"0 s", "60 s"}),
        ((0.0, 2400.0), {"0:00", "40:00"}),
        ((14_100.0, 14_190.0), {"3:55:00", "3:56:30"}),
        ((0.0, 43_200.0), {"0:00 h", "12:00 h"}),
    ],
)
def test_instants_on_the_axis_are_written_as_people_write_them(
    span: tuple[float, float], labels: set[str]
) -> None:
    x = style.Frame(None, None).x("t", span)  # type: ignore[arg-type]
    made = style.Chart("n", "g", "t", "w", [style.layer("point", [{"t": span[0]}], x=x)])
    texts = {"".join(e.itertext()) for e in _is_svg(forms.svg(made)).iter() if e.tag.endswith("text")}
    assert labels <= texts
