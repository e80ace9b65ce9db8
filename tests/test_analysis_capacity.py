"""Requests and chunks second by second, against each row counted by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raybench.analysis.capacity import Load

instants = st.floats(0, 20, allow_nan=False)
rows = st.lists(st.tuples(instants, instants, instants, st.integers(0, 5000)), max_size=30)


@given(rows=rows, cut=st.integers(0, 30))
def test_each_second_gets_what_falls_into_it(rows: list[tuple[float, float, float, int]], cut: int) -> None:
    load = Load()
    made = [(sent, min(a, b), max(a, b), float(n)) for sent, a, b, n in rows]
    for part in (made[:cut], made[cut:]):
        columns = np.array(part).reshape(-1, 4).T
        load.add(*columns)
    requests, chunks = load.per_second()
    for second in range(len(requests)):
        sent = sum(int(s) == second for s, *_ in made)
        received = 0.0
        for _, first, last, n in made:
            if last - first < 1e-3:
                received += n * (int(first) == second)
            else:
                inside = min(last, second + 1) - max(first, second)
                received += n * max(inside, 0.0) / (last - first)
        assert requests[second] == sent
        assert abs(chunks[second] - received) < 1e-3
    assert requests.sum() == len(made)


def test_rows_that_were_not_sent_or_brought_nothing_count_nothing() -> None:
    load = Load()
    nothing, one = np.array([np.nan]), np.array([0.5])
    load.add(nothing, nothing, nothing, np.array([0.0]))
    load.add(one, nothing, nothing, np.array([0.0]))
    requests, chunks = load.per_second()
    assert requests.tolist() == [1.0] and chunks.tolist() == [0.0]
