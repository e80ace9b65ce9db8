"""docs/scenario.md names every key there is, and its examples are scenarios."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from raybench import schedule
from raybench.scenario import Scenario, load
from raybench.scenario.words import _models

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "scenario.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(name: .*?)```", TEXT, re.DOTALL)


def keys(model: type[BaseModel]) -> set[str]:
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            found |= keys(inner)
    return found


@pytest.mark.parametrize("key", sorted(keys(Scenario)))
def test_every_key_is_documented(key: str) -> None:
    assert re.search(rf"\b{key}\b", TEXT), f"docs/scenario.md does not mention {key}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_examples_are_scenarios(tmp_path: Path, example: str) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(example, encoding="utf-8")
    assert schedule.build(load(path)).num_rows > 100


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("name", ["scenario.md", "published-settings.md"])
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (DOCS / name).read_text(encoding="utf-8")):
        assert (DOCS / link).exists(), link


def test_the_published_scenarios_hold_the_published_settings() -> None:
    """Every `key: value` of the settings table, against the scenario itself."""
    table = (DOCS / "published-settings.md").read_text(encoding="utf-8")
    written = (DOCS.parent / "scenarios" / "llama3-8b-every-15s.yaml").read_text(encoding="utf-8")
    pairs = re.findall(r"`(?:deployment|load)[.\w]*?\.(\w+): ([^`{]+)`", table)
    assert len(pairs) > 12
    for key, value in pairs:
        assert re.search(rf"\b{key}: {re.escape(value)}(?=[,}}\s])", written), f"{key}: {value}"
