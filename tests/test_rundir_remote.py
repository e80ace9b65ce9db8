"""A run mirrored to a URI reads as the run does; a store that fails is said and survived."""

from __future__ import annotations

from pathlib import Path

import pytest

from raybench.rundir import RunError
from raybench.rundir.remote import Mirror, fetch, is_uri, local


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "staging"
    (root / "requests").mkdir(parents=True)
    (root / "manifest.json").write_text("{}")
    (root / "requests" / "g000.arrows").write_bytes(b"rows" * 1000)
    return root


def test_every_file_arrives_and_comes_back(run: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "store" / "run1").as_uri()
    mirror = Mirror(run, uri, report=pytest.fail)
    assert mirror.copy()
    (run / "requests" / "g000.arrows").write_bytes(b"rows" * 2000)  # a growing stream goes again
    assert mirror.close()
    assert files(tmp_path / "store" / "run1") == files(run)
    assert files(fetch(uri)) == files(run)


def test_only_what_changed_travels_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(run, (tmp_path / "run1").as_uri(), report=pytest.fail)
    mirror.copy()
    sent: list[str] = []
    monkeypatch.setattr(Mirror, "_send", lambda self, path: sent.append(path.name))
    (run / "manifest.json").write_text('{"more": 1}')
    assert mirror.copy() and sent == ["manifest.json"]


def test_a_place_that_is_taken_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / "something").write_text("here")
    with pytest.raises(RunError, match="is not empty"):
        Mirror(run, (tmp_path / "run1").as_uri(), report=pytest.fail)


def test_a_store_that_fails_is_said_once_and_tried_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    mirror = Mirror(run, (tmp_path / "run1").as_uri(), report=said.append)
    send = Mirror._send

    def broken(self: Mirror, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Mirror, "_send", broken)
    assert not mirror.copy() and not mirror.copy()
    monkeypatch.setattr(Mirror, "_send", send)
    assert mirror.close()
    assert len(said) == 2 and "No space left" in said[0] and "again" in said[1]
    assert files(tmp_path / "run1") == files(run)


def test_an_unknown_scheme_says_what_would_be_right(run: Path) -> None:
    assert is_uri("nosuch://x/y") and not is_uri("outputs/run")
    with pytest.raises(RunError, match="s3://bucket/run"):
        Mirror(run, "nosuch://x/y", report=pytest.fail)


def test_a_uri_is_read_through_a_copy_and_a_directory_as_it_is(run: Path) -> None:
    assert local(str(run)) == run
    assert files(local(run.as_uri())) == files(run)
