"""The schedule: exact columns, exact gaps, the same for any number of generators, and golden hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench import schedule
from raybench.scenario import Scenario, load
from raybench.schema import LoadKind, Phase, Schedule

SCENARIOS = Path(__file__).parent.parent / "scenarios"
S = 1_000_000_000


def scenario(*stages: tuple[float, dict[str, Any]], seed: int = 1, **load_keys: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "t",
            "seed": seed,
            "target": {"url": "http://127.0.0.1:1", "model": "m"},
            "load": {
                "stages": [{"duration": d, "arrival": a} for d, a in stages],
                "request": {"prompt": "p", "max_tokens": 8},
                **load_keys,
            },
        }
    )


def due(table: pa.Table) -> np.ndarray:
    return table[Schedule.scheduled_ns].to_numpy()


def test_exactly_the_columns_of_the_schema() -> None:
    table = schedule.build(scenario((10, {"process": "constant", "interval": 1})))
    assert table.schema.equals(Schedule.schema, check_metadata=True)
    assert table[Schedule.request_id].to_pylist() == list(range(10))
    table.validate(full=True)


def test_a_constant_stage_has_exact_gaps_and_covers_its_duration() -> None:
    table = schedule.build(scenario((10, {"process": "constant", "interval": 0.1})))
    assert due(table).tolist() == [i * S // 10 for i in range(100)]


def test_a_constant_rate_is_within_a_nanosecond_of_its_instants() -> None:
    table = schedule.build(scenario((10, {"process": "constant", "rate": 3})))
    assert due(table).tolist() == [round(i * S / 3) for i in range(30)]


def test_an_interval_that_does_not_divide_the_duration() -> None:
    table = schedule.build(scenario((10, {"process": "constant", "interval": 3})))
    assert due(table).tolist() == [0, 3 * S, 6 * S, 9 * S]


def test_stages_follow_one_another() -> None:
    table = schedule.build(
        scenario(
            (10, {"process": "constant", "interval": 4}),
            (10, {"process": "poisson", "rate": 5}),
            (10, {"process": "constant", "interval": 5}),
        )
    )
    stage = table[Schedule.stage].to_numpy()
    assert due(table)[stage == 0].tolist() == [0, 4 * S, 8 * S]
    assert due(table)[stage == 2].tolist() == [20 * S, 25 * S]
    middle = due(table)[stage == 1]
    assert middle.min() > 10 * S
    assert middle.max() < 20 * S


def test_a_further_stage_or_another_process_before_it_disturbs_nothing() -> None:
    poisson = {"process": "poisson", "rate": 5}
    alone = due(schedule.build(scenario((10, poisson))))
    more = due(schedule.build(scenario((10, poisson), (10, poisson))))
    np.testing.assert_array_equal(more[: len(alone)], alone)
    other = due(schedule.build(scenario((10, {"process": "constant", "interval": 1}), (10, poisson))))
    np.testing.assert_array_equal(other[10:], more[len(alone) :])
    assert not np.array_equal(more[len(alone) :] - 10 * S, alone), "two stages share a stream"


def test_the_seed_decides() -> None:
    stages = (10, {"process": "poisson", "rate": 5})
    one, again, two = (schedule.build(scenario(stages, seed=seed)) for seed in (1, 1, 2))
    assert schedule.digest(one) == schedule.digest(again) != schedule.digest(two)


PROCESSES = st.one_of(
    st.builds(lambda i: {"process": "constant", "interval": i}, st.floats(0.01, 20)),
    st.builds(lambda r: {"process": "constant", "rate": r}, st.floats(0.01, 20)),
    st.builds(lambda r: {"process": "poisson", "rate": r}, st.floats(0.01, 20)),
    st.builds(
        lambda r, b: {"process": "gamma", "rate": r, "burstiness": b}, st.floats(0.01, 20), st.floats(0.1, 9)
    ),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0.1, 40), PROCESSES), min_size=1, max_size=4), st.integers(0, 2**40))
def test_sorted_within_their_stage_and_prefix_stable(
    stages: list[tuple[float, dict[str, Any]]], seed: int
) -> None:
    table = schedule.build(scenario(*stages, seed=seed))
    instants, stage = due(table), table[Schedule.stage].to_numpy()
    assert (np.diff(instants) >= 0).all()
    begin = 0
    for number, (duration, _) in enumerate(stages):
        mine = instants[stage == number]
        assert ((mine >= begin) & (mine < begin + round(duration * S))).all()
        begin += round(duration * S)
    longer = [*stages[:-1], (stages[-1][0] * 2, stages[-1][1])]
    np.testing.assert_array_equal(
        due(schedule.build(scenario(*longer, seed=seed)))[: len(instants)], instants
    )


@pytest.mark.parametrize("generators", [1, 2, 4, 7])
def test_parts_are_the_whole_without_overlap(generators: int) -> None:
    table = schedule.build(scenario((20, {"process": "poisson", "rate": 5})))
    parts = [schedule.part(table, g, generators) for g in range(generators)]
    for g, one in enumerate(parts):
        assert one[Schedule.request_id].to_pylist() == list(range(g, table.num_rows, generators))
    union = pa.concat_tables(parts).sort_by(Schedule.request_id)
    assert schedule.digest(union) == schedule.digest(table)


def test_a_part_that_does_not_exist() -> None:
    table = schedule.build(scenario((20, {"process": "constant", "interval": 1})))
    with pytest.raises(ValueError, match="0 to 1"):
        schedule.part(table, 2, 2)


def test_the_digest_sees_values_and_nulls_and_nothing_else() -> None:
    table = schedule.build(scenario((20, {"process": "poisson", "rate": 5})))
    name = schedule.digest(table)
    assert schedule.digest(pa.concat_tables([table.slice(0, 7), table.slice(7)])) == name
    assert schedule.digest(table.replace_schema_metadata({"a": "b"})) == name
    where = table.schema.names.index(Schedule.max_tokens)
    limits = table[Schedule.max_tokens].to_pylist()
    for other in ([9, *limits[1:]], [None, *limits[1:]]):
        changed = table.set_column(where, table.schema.field(where), pa.array(other, pa.int32()))
        assert schedule.digest(changed) != name
    zero, null = (
        table.set_column(where, table.schema.field(where), pa.array([v] * len(limits), pa.int32()))
        for v in (0, None)
    )
    assert schedule.digest(zero) != schedule.digest(null)
    with pytest.raises(ValueError, match="columns"):
        schedule.digest(table.drop_columns([Schedule.stage]))


@pytest.mark.parametrize(
    ("name", "planned", "sha256"),
    [
        ("demo", 112, "8cd08974d1e1a41450c3dc9f5d8184410e58c444180c35a16c500ed9ec6a2c82"),
        ("llama3-8b-every-15s", 160, "e262543359a09c7184d74f04c041519b000c265da3729cf274ab20dc65b8857d"),
        ("llama3-8b-every-6s", 300, "7f470de0f5136bd1ba5e95a0b5f37fbfdab0b7523593c0f003497436d1ce66e8"),
        ("llama3-8b-every-30s", 40, "7c74ad0d3290d8736ae4445ce54880cefdb2d755969fe27bdd62171ef9f6223d"),
        ("target-example", 308, "ace665b3b39997bf50dfded54fec84ebe69cd298be6741d649e52764b3afd4a2"),
    ],
)
def test_golden_hashes(name: str, planned: int, sha256: str) -> None:
    """These change only together with `DIGEST_VERSION` or with the scenario itself."""
    table = schedule.build(load(SCENARIOS / f"{name}.yaml"))
    assert table.num_rows == planned
    assert schedule.digest(table) == sha256


def test_phases() -> None:
    one = scenario((10, {"process": "constant", "interval": 1}), warmup=2.0, cooldown=3.0)
    codes = schedule.phases(one, np.array([0, 2 * S - 1, 2 * S, 7 * S - 1, 7 * S, 99 * S]))
    assert codes.dtype == np.int8
    names = [list(Phase)[code] for code in codes]
    assert names == [Phase.WARMUP] * 2 + [Phase.STEADY] * 2 + [Phase.COOLDOWN] * 2
    assert schedule.duration_ns(one) == 10 * S


def test_the_kind_of_load() -> None:
    assert schedule.load_kind(scenario((10, {"process": "constant", "interval": 1}))) == LoadKind.OPEN
