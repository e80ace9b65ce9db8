"""The page in a real browser: the charts come alive, and nothing is asked of any network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import charted
import pytest

from raybench.report.charts import charts
from raybench.report.html import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def browse(page: Path, tmp_path: Path) -> tuple[str, list[str]]:
    """The page as it stands after its scripts have run, and every address that it asked for itself."""
    assert BROWSER is not None
    log = tmp_path / "net.json"
    args = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [*args, "--virtual-time-budget=20000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, _asked(log.read_text())


def _asked(log: str) -> list[str]:
    """From the browser's log of its network. Its own services' requests have no page as their initiator."""
    log = log.rstrip().rstrip(",")
    try:
        events = json.loads(log)["events"]
    except ValueError:  # the browser went before it closed the list
        events = json.loads(log + "]}")["events"]
    about = [event.get("params") or {} for event in events]
    return [str(p["url"]) for p in about if p.get("url") and p.get("initiator", "not an origin") == "null"]


def test_the_charts_come_alive_and_nothing_is_asked_of_a_network(tmp_path: Path) -> None:
    summary, series = charted.scaled(tmp_path / "run", hostile=True)
    page = tmp_path / "report.html"
    page.write_text(render(summary, series))
    drawn = [c for c in charts(summary, series) if c.drawn]
    dom, asked = browse(page, tmp_path)
    figures = re.findall(r'<figure class="chart".*?</figure>', dom, re.DOTALL)
    assert len(figures) == len(drawn)
    for figure in figures:
        head, picture = figure[: figure.index(">") + 1], figure[: figure.index("<figcaption")]
        assert 'data-live="yes"' in head, head
        assert picture.count("<svg") == 1  # the still one has gone
        assert len(re.findall(r"<path", picture)) >= 3, head
        assert "mark-text role-axis-label" in picture
    assert not {"img", "b", "iframe", "link"} & Tags(dom).tags
    assert [a for a in asked if not a.startswith(("file:", "data:", "blob:"))] == []


def test_the_log_would_show_what_a_page_asks_for(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text('<!DOCTYPE html><html><body><img src="http://127.0.0.1:9/picture.png"></body></html>')
    _, asked = browse(page, tmp_path)
    assert "http://127.0.0.1:9/picture.png" in asked


def test_without_scripts_the_still_pictures_stay(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    made = render(*charted.edge(tmp_path / "run", "target without timeline"))
    page.write_text(re.sub(r"script-src [^\"]*", "script-src 'none'", made, count=1))
    dom, _ = browse(page, tmp_path)
    figures = re.findall(r'<figure class="chart".*?</figure>', dom, re.DOTALL)
    assert len(figures) >= 5
    assert all("data-live" not in f and f.count("<svg") == 1 for f in figures)
