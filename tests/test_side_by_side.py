"""The comparison with other generators: its figures, and what it asks of each. None is needed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raybench.client.null_server import Answer
from raybench.scenario import load as load_scenario
from raybench.schedule import build
from raybench.schema import Schedule

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    from side_by_side import measure, peers
finally:
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """`benchmarks/side_by_side.py`, which shares its name with the package of its parts."""
    spec = importlib.util.spec_from_file_location("side_by_side_program", BENCHMARKS / "side_by_side.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seen(cpu_s: float, requests: int, **changes: object) -> measure.Seen:
    values = {"cpu_s": cpu_s, "wall_s": 2.0, "requests": requests, "chunks": 64 * requests}
    return measure.Seen(**(values | {"span_s": 1.0, "server_cpu_s": 0.5} | changes))


@given(
    st.lists(st.integers(-4_000_000, 4_000_000), min_size=1, max_size=60),
    st.integers(0, 10**15),
    st.sampled_from([10.0, 100.0, 300.0]),
)
def test_the_grid_that_fits_best(late_ns: list[int], t0_ns: int, rate: float) -> None:
    arrivals = sorted(t0_ns + round(i * 1e9 / rate) + late for i, late in enumerate(late_ns))
    errors = measure.grid_error_ns(arrivals[::-1], rate)
    offsets = [at - round(i * 1e9 / rate) for i, at in enumerate(arrivals)]
    # The least sum of distances over every grid through one of the arrivals, by trying all of them.
    least = min(sum(abs(offset - begin) for offset in offsets) for begin in offsets)
    assert list(errors) == sorted(errors) and min(errors) >= 0
    assert least <= sum(errors) <= least + len(offsets)  # the median may lie between two, in whole ns


def test_a_delay_that_is_always_the_same_is_forgiven_by_the_grid_only() -> None:
    arrivals = [5_000_000 + i * 10_000_000 for i in range(50)]
    assert measure.points(measure.grid_error_ns(arrivals, 100.0)) == (0, 0)
    assert measure.points(measure.lateness_ns(arrivals, 0, 100.0)) == (5_000_000, 5_000_000)
    arrivals[49] += 3_000_000
    assert measure.points(measure.grid_error_ns(arrivals, 100.0)) == (0, 3_000_000)
    # A slot given up moves every later arrival away from its line.
    del arrivals[10]
    assert measure.points(measure.grid_error_ns(arrivals, 100.0)) == (0, 10_000_000)


def test_figures_come_from_the_servers_record() -> None:
    load = measure.Load("paced", Answer(tokens=2), requests=3, rate_per_s=100.0)
    log = {
        "a": [1_000, 2_000, 3_000],
        "c": [20_001_000, 20_002_000, 20_003_000],
        "b": [10_001_000, 10_002_000],
    }
    cost = {"cpu_s": 0.25, "wall_s": 1.5, "left_over": 1}
    found = measure.figures(load, log, cost, 'hello\n{"t0_ns": 500}\n', server_cpu_s=0.01)
    assert (found.requests, found.chunks, found.span_s) == (3, 6, 20_002_000 / 1e9)
    assert (found.cpu_s, found.wall_s, found.left_over) == (0.25, 1.5, 1)
    assert (found.lateness_ns, found.grid_ns) == ((500, 500), (0, 0))
    assert measure.figures(load, log, cost, "no schedule told", 0.01).lateness_ns is None
    with pytest.raises(measure.Failed, match="no request arrived"):
        measure.figures(load, {}, cost, "", 0.0)


def test_cpu_is_what_the_load_took_above_a_run_of_few() -> None:
    few = [seen(3.0, 64), seen(9.0, 64), seen(4.0, 64)]
    assert measure.net(seen(14.0, 1064), few, "requests") == pytest.approx(10.0 / 1000)
    assert measure.net(seen(14.0, 1064), few, "chunks") == pytest.approx(10.0 / 64_000)
    assert measure.net(seen(14.0, 1000), [], "requests") == pytest.approx(0.014)


def test_what_is_kept_is_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert measure.kept(path) == {}
    found = {"paced": {"locust": [seen(1.0, 10, grid_ns=(1, 2)), seen(2.0, 10, lateness_ns=(3, 4))]}}
    measure.keep(path, found)
    assert measure.kept(path) == found


def test_the_table(program: ModuleType) -> None:
    found = {
        "few": {"raybench": [seen(1.0, 0)]},
        "bunched": {"raybench": [seen(c, 1000, span_s=0.5) for c in (1.064, 1.128, 1.256)]},
        "few-paced": {"raybench": [seen(1.0, 0)], "hey": [seen(1.0, 0)]},
        "paced": {"raybench": [seen(1.5, 1000, grid_ns=(1_000, 2_000_000), lateness_ns=(50_000, 700_000))]},
        "ten": {"raybench": [seen(1.0, 10, wall_s=0.9)], "hey": [seen(1.0, 10, wall_s=0.01)]},
    }
    head, line, raybench, hey = program.table(found, ["raybench", "hey"]).splitlines()
    cells = [cell.strip() for cell in raybench.strip("|").split("|")]
    assert cells[:5] == ["raybench", "2.00 (1.00–4.00)", "128,000", "—", "—"]
    assert cells[5:] == ["0.50", "0.001", "2.000", "0.050", "0.700", "0.90"]
    assert head.count("|") == line.count("|") == raybench.count("|") == hey.count("|")
    assert [cell.strip() for cell in hey.strip("|").split("|")] == ["hey", *["—"] * 9, "0.01"]


def test_a_load_as_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    for load in (
        measure.Load("few-paced", Answer(tokens=32), requests=20, rate_per_s=100.0),
        measure.Load("ten", Answer(tokens=8), requests=10, concurrency=1),
    ):
        path.write_text(yaml.safe_dump(peers.scenario(load, "http://127.0.0.1:1")))
        scenario = load_scenario(path)
        planned = build(scenario)
        assert planned.num_rows == load.requests and scenario.load.concurrency == load.concurrency
        if load.rate_per_s:
            assert np.diff(planned[Schedule.scheduled_ns].to_numpy()).tolist() == [10_000_000] * 19


def test_every_peer_is_asked_for_the_load_it_is_given(program: ModuleType, tmp_path: Path) -> None:
    place = peers.Place(Path("peers/some"), tmp_path, tmp_path)
    for name, peer in peers.PEERS.items():
        asked = {
            load: peer.command(peer.sized(program.LOADS[load]), "http://h:1", place) for load in program.LOADS
        }
        assert any(asked.values()), name
        assert not asked["bunched"] or asked["few"] or not peer.exact, f"{name}: nothing to take off"
        assert not asked["paced"] or asked["few-paced"], f"{name}: nothing to take off"
        for load, command in asked.items():
            if command and peer.exact and name not in peers.OWN:
                words = " ".join([*command[0], *command[1].values()])
                assert str(peer.sized(program.LOADS[load]).requests) in words, (name, load)
    assert peers.PEERS["aiperf"].sized(program.LOADS["bunched"]).requests == 998
    assert peers.PEERS["aiperf"].sized(program.LOADS["alone"]).requests == 960


def test_what_is_absent_is_said(tmp_path: Path) -> None:
    assert "locust" in str(peers.missing("locust", tmp_path))
    assert peers.missing("vllm", peers.own_environment()) is None  # a Python is there; vLLM is its business


def test_the_null_server_suits_other_clients() -> None:
    """A model to ask for, and requests without an id kept apart."""
    with measure.served(measure.Load("few", Answer(tokens=1), requests=2), 0) as (url, _):
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as told:
            assert [model["object"] for model in json.load(told)["data"]] == ["model"]
        for _ in range(2):
            urllib.request.urlopen(f"{url}/v1/chat/completions", b"{}", timeout=5).read()
        with urllib.request.urlopen(f"{url}/log", timeout=5) as told:
            log = json.load(told)
    assert len(log) == 2 and all(len(stamps) == 2 for stamps in log.values())


def test_the_whole_process_tree_is_counted(tmp_path: Path) -> None:
    """A child that outlives its parent, and burns a known time before and after the parent's end."""
    burn = "import time\nwhile time.process_time() < {}: pass\n"
    inner = burn.format(0.3)
    outer = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {inner!r}])\n" + burn.format(
        0.1
    )
    report = tmp_path / "cost.json"
    launch = [sys.executable, str(BENCHMARKS / "side_by_side" / "launch.py"), "0", "20", str(report)]
    subprocess.run([*launch, sys.executable, "-c", outer], check=True, timeout=30)
    cost = json.loads(report.read_text())
    assert cost["rc"] == 0 and cost["left_over"] == 0
    assert cost["cpu_s"] >= 0.4
    subprocess.run([*launch, sys.executable, "-c", "raise SystemExit(7)"], check=True, timeout=30)
    assert json.loads(report.read_text())["rc"] == 7


def test_a_launcher_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    sleeper = (
        f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    launch = [
        sys.executable,
        str(BENCHMARKS / "side_by_side" / "launch.py"),
        "0",
        "50",
        str(tmp_path / "cost"),
    ]
    with subprocess.Popen([*launch, sys.executable, "-c", sleeper]) as process:
        while not (told.exists() and told.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
