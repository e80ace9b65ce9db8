"""The page: the text report's figures, nothing from anywhere, nobody else's markup, bounded in size."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import charted
import pytest
import runs
from click.testing import CliRunner

from raybench.analysis.question import Question
from raybench.cli.main import main
from raybench.cli.reporting import report
from raybench.report.blocks import Grid, Lines, Pairs, Verbatim
from raybench.report.charts import charts
from raybench.report.html import render
from raybench.report.sections import sections
from raybench.schema import Exit, Timeline

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page in order, checked to be properly nested, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for t, attrs, _ in self.elements if t == tag]


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return charted.scaled(tmp_path_factory.mktemp("html") / "run")


@pytest.fixture(scope="module")
def text(scaled: Any) -> str:
    return render(*scaled)


def test_the_page_holds_every_word_and_figure_of_the_text_report(scaled: Any, text: str) -> None:
    words = " ".join(" ".join(Page(text).text).split())
    for section in sections(scaled[0]):
        assert section.title in words
        for block in section.blocks:
            match block:
                case Grid(head, rows, _):
                    cells = [*head, *(cell for row in rows for cell in row)]
                case Pairs(rows):
                    cells = [cell for row in rows for cell in row]
                case Lines(lines):
                    cells = [line.strip().removeprefix("- ") for line in lines]
                case Verbatim(verbatim):
                    cells = [verbatim]
            for cell in cells:
                assert " ".join(cell.split()) in words, (section.title, cell)


def test_it_tells_when_it_scaled_why_how_long_and_who_waited(scaled: Any, text: str) -> None:
    glance = text[text.index('id="glance"') : text.index('id="autoscaling"')]
    words = html.unescape(re.sub(r"<[^>]*>", " ", glance))
    chain = next(c for c in scaled[0].scaling.chains if c.step == 1)
    assert "10.00 s 1 → 2" in " ".join(words.split())
    assert "queue depth 12 >= 5 through 5 s" in words and "brings up the first replica" in words
    assert f"{chain.waited.requests}" in words


def test_nothing_is_loaded_and_the_page_says_so(text: str) -> None:
    page = Page(text)
    addresses = set(re.findall(r"\w+://[\w.-]+", text.replace("http://www.w3.org", "")))
    assert addresses == set()  # the one left is the name of the SVG language
    for tag, attrs, _ in page.elements:
        for name in ("src", "srcset", "poster", "action", "data", "background"):
            assert name not in attrs, (tag, attrs)
        href = attrs.get("href") or attrs.get("xlink:href") or "#"
        assert tag != "link" and href.startswith("#")
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    run = [body for attrs, body in page.scripts if attrs.get("type") != "application/json"]
    assert {base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in run} == allowed


def test_it_can_be_read_without_seeing_it(text: str) -> None:
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1 and len(page.all("main")) == 1
    ids = [attrs["id"] for _, attrs, _ in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for _, attrs, _ in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert name not in attrs or attrs[name] in ids
    for attrs in page.all("a"):
        assert (attrs["href"] or "")[1:] in ids
    level = 1
    for tag, _, _ in page.elements:
        if re.fullmatch("h[1-6]", tag):
            assert int(tag[1]) <= level + 1
            level = int(tag[1])
    drawings = [attrs for _, attrs, _ in page.elements if attrs.get("role") == "img"]
    assert drawings and all(a.get("aria-describedby") and a.get("aria-labelledby") for a in drawings)
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert any(m.get("name") == "viewport" for m in page.all("meta"))


def test_every_chart_is_there_as_a_picture_and_as_data(scaled: Any, text: str) -> None:
    page = Page(text)
    drawn = [c for c in charts(*scaled) if c.drawn]
    figures = [a for a in page.all("figure") if a.get("class") == "chart"]
    assert [f["id"] for f in figures] == [f"chart-{c.name}" for c in drawn]
    data = [json.loads(body) for attrs, body in page.scripts if attrs.get("type") == "application/json"]
    assert len(data) == len(drawn) and all(d["width"] == "container" for d in data)
    assert sum(tag == "svg" for tag, _, _ in page.elements) == len(drawn)


def test_what_a_run_says_is_text_and_never_markup(tmp_path: Path) -> None:
    made = render(*charted.scaled(tmp_path / "run", hostile=True))
    page = Page(made)
    assert page.all("img") == [] and page.all("b") == []
    assert len(page.scripts) == 2 + len(page.all("figure"))
    assert len(page.all("style")) == 1
    assert not any(name.startswith("on") for _, attrs, _ in page.elements for name in attrs)
    words = "".join(page.text)
    assert words.count(charted.HOSTILE) >= 5  # name, model, problem, error, reason of a step
    bars = next(json.loads(b) for a, b in page.scripts if a.get("type") and '"wait":' in b)
    replicas = {row.get("replica") for rows in bars["datasets"].values() for row in rows}
    assert charted.HOSTILE in replicas


@pytest.mark.parametrize("name", charted.EDGES)
def test_runs_at_the_edges_make_a_whole_page(tmp_path: Path, name: str) -> None:
    page = Page(render(*charted.edge(tmp_path / "run", name)))
    assert "The report in full" in "".join(page.text)
    if name == "empty":
        assert "Not drawn: no request was recorded." in "".join(page.text)


def test_a_large_run_makes_a_page_of_bounded_size(tmp_path: Path) -> None:
    """Twenty thousand requests and half a day of samples."""
    n, hours = 20_000, 12
    gap = hours * 3600 / n
    rows = [
        runs.ok(i, anchor_s=i * gap, first_s=i * gap + 0.5 + i % 13, done_s=i * gap + 20 + i % 7, tokens=30)
        for i in range(n)
    ]
    samples = [
        {
            Timeline.t_ns: runs.ns(float(t)),
            Timeline.waiting: float(t % 17),
            Timeline.serving: 4.0,
            Timeline.queue_depth: (t % 17 + 4.0) / (1 + t // 60 % 2),
            Timeline.replicas_available: 1 + t // 60 % 2,
            Timeline.replicas_target: 1 + t // 60 % 2,
        }
        for t in range(0, hours * 3600, 2)
    ]
    scenario = charted.SCENARIO
    summary, series = charted.read(
        runs.write(tmp_path / "r", rows, timeline=samples, scenario=scenario, batch_rows=n)
    )
    text = render(summary, series)
    assert len(text) < 3_000_000
    assert "of every" in text and "the mean of every 108 s" in text
    assert all(
        len(rows) <= 2500 for c in charts(summary, series) for rows in (x["data"]["values"] for x in c.layers)
    )


# --- the command line --------------------------------------------------------------------------------


def _run(path: Path) -> Path:
    return runs.write(
        path,
        charted.scaling_rows(),
        timeline=charted.timeline(),
        events=charted.events(),
        scenario=charted.SCENARIO,
        load_total_s=45.0,
    )


def test_analyze_writes_the_page_and_the_charts(tmp_path: Path) -> None:
    run, page, pictures = _run(tmp_path / "run"), tmp_path / "page.html", tmp_path / "charts"
    args = ["analyze", str(run), "--format", "html", "--output", str(page), "--charts", str(pictures)]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == Exit.OBJECTIVES_MISSED and done.output == ""
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert {"qps.png", "qps.svg", "replicas.png", "waterfall-2.svg"} <= {p.name for p in pictures.iterdir()}


def test_analyze_says_which_file_it_could_not_write(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    done = CliRunner().invoke(main, ["analyze", str(run), "-o", str(tmp_path / "no" / "r.txt")])
    assert done.exit_code == Exit.FAILURE and "r.txt: could not be written" in done.output


def test_a_page_is_of_one_run(tmp_path: Path) -> None:
    run = str(_run(tmp_path / "run"))
    done = CliRunner().invoke(main, ["analyze", run, run, "--format", "html"])
    assert done.exit_code == Exit.USAGE and "one RUN at a time" in done.output


def test_a_run_leaves_its_page_beside_the_text(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    assert report(run, Question(), "text").exit_code is Exit.OBJECTIVES_MISSED
    assert (run / "report.txt").exists() and "</html>" in (run / "report.html").read_text()


def test_a_chart_that_fails_costs_a_line_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("no such font")

    monkeypatch.setattr("raybench.cli.reporting.page", broken)
    run = _run(tmp_path / "run")
    assert report(run, Question(), "text").exit_code is Exit.OBJECTIVES_MISSED
    assert "report.html: could not be made: RuntimeError: no such font" in capsys.readouterr().err
    assert (run / "report.txt").exists() and not (run / "report.html").exists()
