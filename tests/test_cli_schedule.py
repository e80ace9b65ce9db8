"""`raybench schedule`: what it prints, what it exports, how it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from raybench import schedule
from raybench.cli.main import main
from raybench.scenario import load
from raybench.schedule.text import duration, rate, sparkline
from raybench.schema import Schedule

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "scenarios" / "demo.yaml"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["schedule", *map(str, arguments)])


def test_the_summary_names_count_kind_and_hash() -> None:
    result = run(DEMO, "--generators", 3)
    assert result.exit_code == 0, result.output
    assert "demo: 112 requests in 56s, open loop" in result.output
    assert schedule.digest(schedule.build(load(DEMO))) in result.output
    assert "3 generators: 38, 37, 37 requests" in result.output


def test_the_figures_are_those_of_the_table() -> None:
    figures = json.loads(run(DEMO, "--format", "json").output)
    assert [stage["planned"] for stage in figures["stages"]] == [6, 96, 10]
    assert [stage["expected"] for stage in figures["stages"]] == [6, 96, 10]
    assert figures["stages"][1]["gaps"] == {"mean_s": 0.25, "cv": 0.0, "min_s": 0.25, "max_s": 0.25}
    assert figures["stages"][2]["start_s"] == 36
    bars = figures["rate_bins_per_s"]
    assert sum(bars) / len(bars) == pytest.approx(figures["planned"] / figures["duration_s"])


@pytest.mark.parametrize("suffix", ["arrow", "parquet", "csv", "jsonl"])
def test_exports_hold_every_row(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"demo.{suffix}"
    assert run(DEMO, "--export", target).exit_code == 0
    table = schedule.build(load(DEMO))
    if suffix == "arrow":
        assert schedule.digest(pa.ipc.open_stream(target.read_bytes()).read_all()) == schedule.digest(table)
    elif suffix == "parquet":
        assert schedule.digest(pa.parquet.read_table(target)) == schedule.digest(table)
    elif suffix == "csv":
        assert pa.csv.read_csv(target)[Schedule.scheduled_ns].equals(table[Schedule.scheduled_ns])
    else:
        assert [json.loads(line) for line in target.read_text().splitlines()] == table.to_pylist()


def test_an_export_overwrites_only_when_told(tmp_path: Path) -> None:
    target = tmp_path / "demo.csv"
    target.write_text("precious")
    result = run(DEMO, "--export", target)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert target.read_text() == "precious"
    assert run(DEMO, "--export", target, "--force").exit_code == 0
    assert target.read_text() != "precious"


def test_an_export_to_an_unknown_kind_of_file(tmp_path: Path) -> None:
    result = run(DEMO, "--export", tmp_path / "demo.xlsx")
    assert result.exit_code == 2
    assert ".parquet" in result.stderr


def test_mistakes_leave_with_2_and_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(DEMO.read_text().replace("duration: 12s", "duration: 12").replace("seed: 1", "sed: 1"))
    result = run(path)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{path}:") for line in lines)
    assert run(tmp_path / "none.yaml").exit_code == 2


def test_the_seed_can_be_given() -> None:
    target = ROOT / "scenarios" / "target-example.yaml"
    first, second = (json.loads(run(target, "--format", "json", "--seed", s).output) for s in (1, 2))
    assert (first["seed"], second["seed"]) == (1, 2)
    assert first["sha256"] != second["sha256"]


def test_ray_is_not_imported() -> None:
    code = (
        "import sys; from raybench.cli.main import main\n"
        "try: main(['schedule', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(DEMO)], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_bars_durations_and_rates() -> None:
    assert sparkline([0, 0.1, 4, 8]) == " ▁▄█"
    assert sparkline([0, 0]) == "  "
    assert [duration(s) for s in (0, 90, 120, 7200, 0.25, 2e-5, 3e-9)] == [
        "0s",
        "90s",
        "2m",
        "2h",
        "250ms",
        "20us",
        "3ns",
    ]
    assert [rate(r) for r in (0, 4, 0.5)] == ["0/s", "4/s", "30/min"]
