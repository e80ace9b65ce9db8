"""Rates that change with time: each shape against its own definition, by independent means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import integrate, stats

from raybench.scenario.arrivals import Arrival
from raybench.schedule import processes
from raybench.schedule.processes import offsets_ns

S = 1_000_000_000
D = 60.0


def arrival(process: str, **keys: Any) -> Any:
    return TypeAdapter(Arrival).validate_python({"process": process, **keys})


SHAPES = {
    "constant": arrival("constant", rate=3),
    "poisson": arrival("poisson", rate=3),
    "ramp up": arrival("ramp", start=0, end=10),
    "ramp down": arrival("ramp", start=10, end=0),
    "flat ramp": arrival("ramp", start=4, end=4),
    "sine": arrival("sine", mean=5, amplitude=3, period=17),
    "deep sine": arrival("sine", mean=5, amplitude=5, period=20, phase=0.75),
    "steps": arrival("steps", rates=[1, 8, 3], each=7),
    "pauses": arrival("steps", rates=[0, 10, 0, 2], each=5),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@shapes
def test_the_integral_is_that_of_the_rate(shape: Any) -> None:
    corners = list(np.arange(0, D, 1.0))
    for end in (0.3, 13.7, 59.9, D):
        inside = [c for c in corners if 0 < c < end]
        area = integrate.quad(
            lambda t: processes.rate(shape, D, np.array([t]))[0], 0, end, points=inside, limit=500
        )[0]
        assert processes.cumulative(shape, D, np.array([end]))[0] == pytest.approx(area, abs=1e-6)
    assert shape.expected(D) == pytest.approx(processes.cumulative(shape, D, np.array([D]))[0], abs=1e-6)


@shapes
def test_the_inverse_is_the_inverse(shape: Any) -> None:
    total = shape.expected(D)
    due = np.linspace(0, total, 500, endpoint=False)
    t = processes.inverse(shape, D, due)
    assert (np.diff(t) >= 0).all()
    np.testing.assert_allclose(processes.cumulative(shape, D, t), due, atol=1e-6)


@shapes
def test_even_spacing_follows_the_integral(shape: Any) -> None:
    if shape.process == "poisson":
        return
    offsets = offsets_ns(shape, D, 1, 0)
    assert len(offsets) == np.ceil(round(shape.expected(D), 6))
    counted = processes.cumulative(shape, D, offsets / S)
    np.testing.assert_allclose(counted, np.arange(len(offsets)), atol=1e-5)


@pytest.mark.parametrize("name", ["ramp up", "ramp down", "sine", "steps"])
def test_random_spacing_is_poisson_in_operational_time(name: str) -> None:
    changes = {"spacing": "poisson"}
    if name == "steps":
        shape = SHAPES[name].model_copy(update=changes | {"rates": [100.0, 800.0, 300.0]})
    elif name == "sine":
        shape = SHAPES[name].model_copy(update=changes | {"mean": 500.0, "amplitude": 300.0})
    else:
        shape = SHAPES[name].model_copy(
            update=changes | {"start": SHAPES[name].start * 100, "end": SHAPES[name].end * 100}
        )
    offsets = offsets_ns(shape, D, 1, 0)
    rescaled = processes.cumulative(shape, D, offsets / S)
    assert stats.kstest(np.diff(rescaled, prepend=0), stats.expon().cdf).pvalue > 0.01
    assert len(offsets) == pytest.approx(shape.expected(D), abs=2.6 * np.sqrt(shape.expected(D)))


def test_a_pause_is_silent_and_the_first_request_comes_at_its_end() -> None:
    offsets = offsets_ns(SHAPES["pauses"], D, 1, 0)
    seconds = offsets / S
    assert offsets[0] == 5 * S
    phase = (seconds // 5) % 4
    assert not np.isin(phase, [0, 2]).any()
    assert [int((seconds // 5 == i).sum()) for i in range(4)] == [0, 50, 0, 10]


def test_nothing_but_pauses_plans_nothing() -> None:
    assert len(offsets_ns(arrival("steps", rates=[0], each=1), D, 1, 0)) == 0


def test_bursts() -> None:
    at_once = offsets_ns(arrival("bursts", size=3, every=20), D, 1, 0)
    assert at_once.tolist() == [0] * 3 + [20 * S] * 3 + [40 * S] * 3
    spread = offsets_ns(arrival("bursts", size=4, every=20, within=2), 21.0, 1, 0)
    assert spread.tolist() == [0, S // 2, S, 3 * S // 2, 20 * S, 20 * S + S // 2]
    over = offsets_ns(arrival("bursts", size=2, every=30, background=0.1), D, 1, 0)
    assert over.tolist() == sorted([0, 0, 30 * S, 30 * S, *range(0, 60 * S, 10 * S)])


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 20),
    st.floats(0.5, 30),
    st.floats(0, 1),
    st.floats(0.1, 90),
    st.sampled_from([0, 0.5, 3.0]),
)
def test_bursts_plan_what_they_expect(
    size: int, every: float, share: float, duration: float, background: float
) -> None:
    shape = arrival("bursts", size=size, every=every, within=every * share, background=background)
    offsets = offsets_ns(shape, duration, 1, 0)
    assert (np.diff(offsets) >= 0).all()
    assert len(offsets) == pytest.approx(shape.expected(duration), abs=2)
    assert ((offsets >= 0) & (offsets < round(duration * S))).all()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["sine", "steps", "deep sine", "pauses"]), st.sampled_from(["even", "poisson"]),
       st.floats(0.1, 100), st.integers(0, 9))  # fmt: skip
def test_a_longer_stage_begins_with_the_shorter_one(
    name: str, spacing: str, duration: float, seed: int
) -> None:
    shape = SHAPES[name].model_copy(update={"spacing": spacing})
    short, long = (offsets_ns(shape, d, seed, 0) for d in (duration, 2 * duration))
    assert ((short >= 0) & (short < round(duration * S))).all()
    assert (np.diff(long) >= 0).all()
    # A sine's instants are found by halving the stage: equal to well below a nanosecond, then rounded.
    np.testing.assert_allclose(long[: len(short)], short, atol=1)


def test_shapes_are_golden() -> None:
    """Sums of the instants, exact integers: these change only together with `DIGEST_VERSION`."""
    sums = {
        (name, spacing): int(offsets_ns(SHAPES[name].model_copy(update={"spacing": spacing}), D, 1, 0).sum())
        for name in ("ramp up", "sine", "steps")
        for spacing in ("even", "poisson")
    }
    assert sums == {
        ("ramp up", "even"): 11969288194323,
        ("ramp up", "poisson"): 11912793699115,
        ("sine", "even"): 9498942759075,
        ("sine", "poisson"): 9359004719707,
        ("steps", "even"): 7648500000000,
        ("steps", "poisson"): 7862115545375,
    }
