"""The house itself: floors, late imports, the command line's front door."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from raybench.cli.main import COMMANDS, main
from raybench.schema import TABLES, EventKind, Exit, Outcome

ROOT = Path(__file__).parents[1]


def test_no_import_goes_up_a_floor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_loads_neither_ray_nor_pyarrow_before_a_command_needs_them() -> None:
    code = (
        "import sys, raybench.cli.main;"
        "print([m for m in ('ray', 'pyarrow', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_names_its_options(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output and "--" in done.output


def test_a_misspelt_command_is_met_with_the_nearest_one() -> None:
    done = CliRunner().invoke(main, ["analyse"])
    assert done.exit_code == Exit.USAGE
    assert "Did you mean 'analyze'?" in done.output


def test_python_m_raybench_works_from_a_working_directory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raybench", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "raybench" in done.stdout


def test_every_column_event_and_exit_code_says_what_it_means() -> None:
    for table in TABLES:
        for column in table.columns.values():
            assert column.meaning, (table.name, column.name)
            assert column.name.endswith("_ns") == (column.unit == "ns"), (table.name, column.name)
    assert all(kind.meaning for kind in EventKind) and all(code.meaning for code in Exit)
    assert all(isinstance(kind.detail_keys, dict) for kind in EventKind)
    assert len(Outcome) == 9


@pytest.mark.parametrize(
    ("codes", "left"),
    [
        ([], Exit.GOOD),
        ([Exit.OBJECTIVES_MISSED, Exit.INVALID], Exit.INVALID),
        ([Exit.INVALID, Exit.INCOMPLETE], Exit.INCOMPLETE),
        ([Exit.INCOMPLETE, Exit.FAILURE], Exit.FAILURE),
        ([Exit.OBJECTIVES_MISSED, Exit.REGRESSION], Exit.REGRESSION),
    ],
)
def test_where_several_exit_codes_apply_the_worst_wins(codes: list[Exit], left: Exit) -> None:
    assert Exit.worst(codes) is left
