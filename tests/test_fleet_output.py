"""Where a run may go, and the one clear line where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from raybench.fleet.output import OutputError, choose


def test_by_default_a_new_directory_under_outputs(tmp_path: Path) -> None:
    first = choose(None, "demo", outputs=tmp_path)
    first.path.mkdir()
    second = choose(None, "demo", outputs=tmp_path)
    assert first.path.parent == tmp_path and first.path.name.startswith("demo-")
    assert first.path != second.path and first.uri is None


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        choose(str(tmp_path), "demo")
    with pytest.raises(OutputError, match="is a file"):
        choose(str(tmp_path / "kept"), "demo")
    assert choose(str(tmp_path / "new"), "demo").path == tmp_path / "new"


def test_a_uri_gets_a_staging_directory() -> None:
    found = choose("s3://bucket/run/", "demo")
    assert found.uri == found.shown == "s3://bucket/run" and found.path.is_dir()
    found.path.rmdir()


def test_in_a_job_the_working_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    assert choose(None, "demo").path.parts[0] == "outputs"  # fine outside a job
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(OutputError, match="Ray deletes"):
        choose(None, "demo")
    assert choose(str(tmp_path / "shared"), "demo").path == tmp_path / "shared"
