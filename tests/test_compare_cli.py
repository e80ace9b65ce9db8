"""The command: what it prints, and what it leaves with."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import runs
from click.testing import CliRunner, Result
from comparisons import SCENARIO, answers, timed_out

from raybench.cli.compare import command
from raybench.schema import Exit

LEVEL = np.random.default_rng(1).uniform(0.9, 1.1, 1200)


def write(path: Path, factor: float = 1.0, seed: int = 2, timeouts: bool = False, **more: object) -> str:
    noise = np.random.default_rng(seed).uniform(0.98, 1.02, len(LEVEL))
    rows = answers((LEVEL * noise * factor).tolist())
    if timeouts:
        rows = [timed_out(r) if i % 20 == 7 else r for i, r in enumerate(rows)]
    values = {"scenario": SCENARIO, "load_total_s": 1300.0, **more}
    return str(runs.write(path, rows, **values))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--resamples", "200"])


def test_no_difference_is_said_in_one_line_and_leaves_with_0(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", seed=3)
    done = call(a, b)
    assert done.exit_code == Exit.GOOD, done.output
    assert "NO SIGNIFICANT DIFFERENCE" in done.output
    assert "same schedule: request by request" in done.output


def test_a_regression_leaves_with_6_and_names_its_figures(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", factor=1.1, seed=3)
    done = call(a, b)
    assert done.exit_code == Exit.REGRESSION
    line = next(text for text in done.output.splitlines() if "REGRESSION" in text)
    assert "TTFT p50 +1" in line and "E2E p50" in line
    assert call(a, b, "--threshold", "20%").exit_code == Exit.GOOD


def test_the_table_prints_what_json_holds(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", factor=1.1, timeouts=True)
    found = json.loads(call(a, b, "--format", "json").output)
    assert found["exit_code"] == Exit.REGRESSION and found["paired"] is True
    e2e = next(f for f in found["figures"] if f["name"] == "e2e_p50")
    low, high = e2e["ratio_interval"]
    text = call(a, b).output
    row = next(line for line in text.splitlines() if line.strip().startswith("E2E p50"))
    assert f"+{e2e['ratio']:.1%}" in row and f"+{low:.1%} to +{high:.1%}" in row and "REGRESSION" in row
    p99 = next(line for line in text.splitlines() if line.strip().startswith("E2E p99"))
    assert "> 300 s" in p99 and "to …" in p99
    assert "E2E p99 > 300 s" in " ".join(text.split())  # in the first line
    assert "| E2E p50 |" in call(a, b, "--format", "markdown").output


def test_the_same_seed_gives_the_same_text(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", seed=3)
    assert call(a, b).output == call(a, b).output
    assert call(a, b, "--format", "json").output != call(a, b, "--format", "json", "--seed", "5").output


def test_repeats_are_options(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(i), factor=f, seed=i) for i, f in enumerate((1.0, 1.01, 1.2, 1.21))]
    done = call(paths[0], paths[2], "--base", paths[1], "--new", paths[3])
    assert done.exit_code == Exit.REGRESSION, done.output
    assert "differences between repeats" in done.output and "One run a side" not in done.output
    twice = call(paths[0], paths[2], "--base", paths[1], "--base", paths[1])
    assert twice.exit_code == Exit.USAGE and "more than once" in twice.output


def test_what_is_not_comparable_is_refused_with_2_and_listed(tmp_path: Path) -> None:
    other = copy.deepcopy(SCENARIO)
    other["load"]["request"]["prompt"] = "another question"
    a, b = write(tmp_path / "a"), write(tmp_path / "b", scenario=other)
    done = call(a, b)
    assert done.exit_code == Exit.USAGE
    assert 'load.request.prompt: "hello" against "another question"' in done.output
    forced = call(a, b, "--force")
    assert forced.exit_code == Exit.GOOD and "NOT COMPARABLE, forced" in forced.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "five"], "a percentage is right, such as 5%"),
        (["--confidence", "20%"], "a ratio from 0.5 to below 1 is right"),
    ],
)
def test_a_wrong_option_says_what_would_be_right(tmp_path: Path, arguments: list[str], said: str) -> None:
    a = write(tmp_path / "a")
    done = call(a, a, *arguments)
    assert done.exit_code == Exit.USAGE and said in done.output


def test_what_is_no_run_is_refused_with_2(tmp_path: Path) -> None:
    done = call(write(tmp_path / "a"), str(tmp_path / "nowhere"))
    assert done.exit_code == Exit.USAGE and "nowhere" in done.output
