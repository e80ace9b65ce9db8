"""The command line. One command a file; a command's module is imported only when it is called, so that
`raybench --help` stays quick and `analyze` never loads Ray.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from raybench import __version__

COMMANDS = {
    "run": "deploy (or use a target), load, settle, record, report",
    "deploy": "the application alone",
    "remove": "take the application away again",
    "analyze": "the report of a run, from its tables",
    "compact": "one tidy file a table",
    "compare": "differences between runs, with confidence, for people and for CI",
    "capacity": "what one replica sustains within the objectives",
    "simulate": "the same tables from the model, without waiting",
    "tune": "the cheapest settings that meet the objectives",
    "schedule": "show, check and export the stimulus",
    "calibrate": "the client's own floor on this machine",
}
"""Command -> one line of help. The command lives in `raybench.cli.<name>` as `command`."""


class Commands(click.Group):
    """A group that knows its commands by name and imports them late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"raybench.cli.{cmd_name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="raybench")
def main() -> None:
    """When load on an LLM deployment changes: what do users feel, what does the autoscaler do,
    what does it cost?

    \b
    A first run, on the emulated engine:
        raybench run scenarios/demo.yaml
    Its report again, from the tables:
        raybench analyze outputs/demo-…
    """


def fail(message: str, code: int) -> None:
    """One clear line (or several) on standard error, and out."""
    click.echo(message, err=True)
    sys.exit(code)


def bad_input(error: Any) -> None:
    """Leave with exit code 2 and the error's own words."""
    fail(str(error), 2)
