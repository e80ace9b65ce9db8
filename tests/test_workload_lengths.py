"""Drawn lengths and pauses against the distributions they are named after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from raybench.scenario.distributions import Count, Pause
from raybench.workload.draws import Draws
from raybench.workload.files import DataFileError
from raybench.workload.lengths import counts, pauses_ns

N = 20_000


def count(value: Any) -> Any:
    return TypeAdapter(Count).validate_python(value)


def drawn(value: Any, n: int = N) -> np.ndarray:
    return counts(count(value), Draws(1, 1), n)


def test_fixed() -> None:
    assert set(drawn(512).tolist()) == {512}
    assert count({"distribution": "fixed", "value": 512}) == count(512)


def test_uniform() -> None:
    values = drawn({"distribution": "uniform", "min": 3, "max": 12})
    assert stats.chisquare(np.bincount(values)[3:]).pvalue > 0.01
    assert (values.min(), values.max()) == (3, 12)


def test_normal() -> None:
    values = drawn({"distribution": "normal", "mean": 1000.0, "stddev": 100.0})
    assert stats.kstest(values, stats.norm(1000, 100).cdf).pvalue > 0.01
    clipped = drawn({"distribution": "normal", "mean": 10.0, "stddev": 100.0, "min": 2, "max": 50})
    assert (clipped.min(), clipped.max()) == (2, 50)


def test_lognormal() -> None:
    values = drawn({"distribution": "lognormal", "mean": 5000.0, "sigma": 0.7})
    theory = stats.lognorm(s=0.7, scale=5000 * np.exp(-(0.7**2) / 2))
    assert theory.mean() == pytest.approx(5000)
    assert stats.kstest(values, theory.cdf).pvalue > 0.01
    extreme = drawn({"distribution": "lognormal", "mean": 1e9, "sigma": 10.0})
    assert extreme.min() >= 1
    assert extreme.max() <= 2**31 - 1


def test_empirical() -> None:
    values = drawn({"distribution": "empirical", "values": [7, 7, 7, 90]})
    seen = np.array([(values == 7).sum(), (values == 90).sum()])
    assert stats.chisquare(seen, [N * 0.75, N * 0.25]).pvalue > 0.01
    assert seen.sum() == N


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_empirical_from_a_file(tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"l.{suffix}", pa.table({"n": [4, 9]})
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    elif suffix == "csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
    assert set(drawn({"distribution": "empirical", "file": str(path), "column": "n"})) == {4, 9}
    with pytest.raises(DataFileError, match="tokens"):
        drawn({"distribution": "empirical", "file": str(path)})


@pytest.mark.parametrize("bad", ["0", "-1", "1.5", "null", '"x"', "true"])
def test_values_that_are_no_lengths(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text(f'{{"tokens": 3}}\n{{"tokens": {bad}}}\n')
    with pytest.raises(DataFileError, match="row 2"):
        drawn({"distribution": "empirical", "file": str(path)})


@pytest.mark.parametrize(
    "bad",
    [
        0,
        -1,
        1.5,
        True,
        "many",
        {"distribution": "uniform", "min": 3, "max": 2},
        {"distribution": "normal", "mean": 3.0, "stddev": 1.0, "min": 5, "max": 4},
        {"distribution": "empirical"},
        {"distribution": "empirical", "values": []},
        {"distribution": "empirical", "values": [1], "file": "x.csv"},
        {"distribution": "zipf"},
    ],
)
def test_refused(bad: Any) -> None:
    with pytest.raises(ValidationError):
        count(bad)


@pytest.mark.parametrize(
    ("pause", "theory"),
    [
        ({"distribution": "uniform", "min": "1s", "max": "3s"}, stats.uniform(1, 2)),
        ({"distribution": "exponential", "mean": "2s"}, stats.expon(scale=2)),
        (
            {"distribution": "lognormal", "mean": "2s", "sigma": 1.0},
            stats.lognorm(s=1, scale=2 * np.exp(-0.5)),
        ),
    ],
)
def test_pauses(pause: dict[str, Any], theory: Any) -> None:
    found = pauses_ns(TypeAdapter(Pause).validate_python(pause), Draws(2, 5), N)
    assert stats.kstest(found / 1e9, theory.cdf).pvalue > 0.01


def test_a_fixed_pause() -> None:
    assert set(pauses_ns(TypeAdapter(Pause).validate_python("250ms"), Draws(1, 1), 5)) == {250_000_000}


@given(
    st.sampled_from(
        [
            {"distribution": "uniform", "min": 1, "max": 9},
            {"distribution": "normal", "mean": 20.0, "stddev": 30.0},
            {"distribution": "lognormal", "mean": 20.0, "sigma": 1.0},
            {"distribution": "empirical", "values": [1, 5, 9]},
        ]
    ),
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_prefix_stable_and_at_least_one(value: dict[str, Any], n: int, more: int) -> None:
    values = drawn(value, n + more)
    np.testing.assert_array_equal(values[:n], drawn(value, n))
    assert (values >= 1).all()
