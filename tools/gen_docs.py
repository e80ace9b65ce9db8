"""Writes what the docs take from the code: `docs/tables.md` and `docs/report.schema.json`.

python tools/gen_docs.py            # write
python tools/gen_docs.py --check    # exit code 1 if a file has drifted
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from raybench.report.json import schema
from raybench.schema import TABLES, EventKind, Exit, Outcome, Phase, ReplicaState, RunStatus
from raybench.schema.manifest import FORMAT_VERSION
from raybench.schema.tables import SCHEMA_VERSION

DOCS = Path(__file__).resolve().parent.parent / "docs"


def tables() -> str:
    """Every table, event kind, outcome and exit code as Markdown."""
    parts = [
        "# Tables",
        "<!-- written by tools/gen_docs.py from raybench/schema; change it there -->",
        f"Version {SCHEMA_VERSION} of the columns, version {FORMAT_VERSION} of the manifest. "
        "Instants (`_ns`) are integer nanoseconds since t0 on the coordinator's clock, "
        "null where they never happened.",
    ]
    for table in TABLES:
        rows = [
            [f"`{c.name}`", str(c.type).replace("|", "\\|"), c.unit, c.meaning, "yes" if c.null else ""]
            for c in table.columns.values()
        ]
        doc = " ".join((table.__doc__ or "").split())
        parts += [f"## {table.name}", doc, _table(["column", "type", "unit", "meaning", "null"], rows)]
    parts += ["## Event kinds", "The keys of the JSON object in `events.detail`."]
    for kind in EventKind:
        keys = [[f"`{k}`", v] for k, v in kind.detail_keys.items()]
        parts += [f"### {kind}", kind.meaning[0].upper() + kind.meaning[1:] + "."]
        parts += [_table(["key", "meaning"], keys)] if keys else []
    for title, words in (
        ("Outcomes", Outcome),
        ("Phases", Phase),
        ("Replica states", ReplicaState),
        ("States of a run", RunStatus),
    ):
        parts += [f"## {title}", ", ".join(f"`{w}`" for w in words)]
    codes = [[str(int(code)), code.meaning] for code in Exit]
    parts += ["## Exit codes", _table(["code", "meaning"], codes)]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def generated() -> dict[Path, str]:
    return {
        DOCS / "tables.md": tables(),
        DOCS / "report.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> int:
    drifted = [
        p for p, text in generated().items() if not p.exists() or p.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv:
        for path in drifted:
            print(f"{path}: differs from the code; run python tools/gen_docs.py", file=sys.stderr)
        return 1 if drifted else 0
    for path in drifted:
        path.write_text(generated()[path], encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
