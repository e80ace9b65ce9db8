"""The API key: it reaches the server, and nothing that a run leaves behind has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from servers.hostile import HostileServer

from raybench.analysis import Question, summarise
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.report import FORMATS, render
from raybench.rundir import open_run
from raybench.scenario import load
from raybench.schema import TABLES, Outcome

CANARY = "canary-5e1f0c9b7d-not-to-be-found"
VARIABLE = "RAYBENCH_TEST_KEY"


def texts_below(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def processes_holding(words: str) -> list[str]:
    """Child processes with the words in their arguments or their environment."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            held = " ".join(process.cmdline()) + " ".join(process.environ().values())
        except (psutil.Error, OSError):
            continue
        if words in held:
            found.append(process.name())
    return found


def test_the_key_arrives_and_is_found_in_nothing_that_is_left(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray was there before the key: generators do not inherit it, it travels as an argument of a call.

    One of the two servers quotes the key in its refusal, as some do.
    """
    import ray
    from ray._private.worker import global_worker
    from ray.experimental import internal_kv

    monkeypatch.setenv(VARIABLE, CANARY)
    held: list[list[str]] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.stage == "load" and snapshot.sent and not held:
            held.append(processes_holding(CANARY))

    with HostileServer() as server:
        urls = [server.url("good"), server.url("quotes_the_key")]
        target = {"url": urls, "model": "m", "api_key_env": VARIABLE}
        stage = {"duration": "2s", "arrival": {"process": "constant", "rate": "10/s"}}
        keys = {"stages": [stage], "request": {"prompt": "x", "max_tokens": 8, "timeout": "5s"}}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "t", "target": target, "load": keys}))
        conductor = Conductor(load(tmp_path / "s.yaml"), Output(tmp_path / "run"))
        conductor.watch(watch)
        manifest = conductor.run()
        conductor.close(0)
        for name in ("good", "quotes_the_key"):
            assert f"authorization: Bearer {CANARY}".encode() in server.heads[name]

    assert manifest.counts == {Outcome.OK: 10, Outcome.HTTP_ERROR: 10}
    assert held == [[]], "no process has it in its arguments or environment"
    found = open_run(tmp_path / "run")
    summary = summarise(found, Question())
    assert any("***" in reason.error for reason in summary.reasons), (
        "the refusal's words are there, without it"
    )
    for table in TABLES:  # compressed on the disk
        for batch in found.batches(table, list(table.columns)):
            assert CANARY not in str(batch.to_pylist()), table.name
    for form in FORMATS:
        assert CANARY not in render(summary, form), form

    session = Path(global_worker.node.get_session_dir_path())
    assert session.is_dir()
    left = [
        path for d in (tmp_path / "run", session) for path, data in texts_below(d) if CANARY.encode() in data
    ]
    assert not left
    kept: list[Any] = [
        ray.get_runtime_context().runtime_env,
        ray._private.state.actors(),
        ray._private.state.jobs(),
    ]
    for namespace in (None, "raybench", "serve", "job", "fun", "cls", "actor_cls", "runtime_env", "workers"):
        given = None if namespace is None else namespace.encode()
        for key in internal_kv._internal_kv_list(b"", namespace=given):
            kept += [key, internal_kv._internal_kv_get(key, namespace=given)]
    assert len(kept) > 10 and not any(CANARY in str(one) for one in kept)
    assert os.environ[VARIABLE] == CANARY
