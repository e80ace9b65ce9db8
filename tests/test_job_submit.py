"""`ray job submit` on a real head node: the code travels with the job, results stay where they were sent,
a stopped job leaves a readable run. The submitted copy carries a version of its own, so that it shows
when the installed package is used in its place.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers.hostile import HostileServer

from raybench.rundir import open_run
from raybench.schema import RunStatus
from raybench.serving.ports import free_port

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
VERSION = "0.0.0+submitted"


@dataclass
class Head:
    address: str
    environment: dict[str, str]
    working_dir: Path

    def ray(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def submit(self, *arguments: str, no_wait: bool = False, job: str) -> subprocess.CompletedProcess[str]:
        options = ["--address", self.address, "--working-dir", str(self.working_dir), "--submission-id", job]
        if no_wait:
            options.append("--no-wait")
        return self.ray("job", "submit", *options, "--", sys.executable, "-m", "raybench", *arguments)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head node as an operator starts it, on ports of its own."""
    temporary = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))
    working_dir = temporary / "job"
    shutil.copytree(ROOT / "raybench", working_dir / "raybench", ignore=shutil.ignore_patterns("__pycache__"))
    package = working_dir / "raybench" / "__init__.py"
    package.write_text(package.read_text() + f'\n__version__ = "{VERSION}"\n')
    port, dashboard = free_port(), free_port()
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [
            str(BIN / "ray"), "start", "--head", "--block", f"--port={port}",
            f"--ray-client-server-port={free_port()}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={temporary / 'ray'}",
            "--num-cpus=8", "--disable-usage-stats", f"--object-store-memory={200 * 2**20}",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=temporary,
    )  # fmt: skip
    found = Head(f"http://127.0.0.1:{dashboard}", environment, working_dir)
    try:
        _until(lambda: found.ray("job", "list", "--address", found.address).returncode == 0, timeout_s=60)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        shutil.rmtree(temporary, ignore_errors=True)


def _until(true: Callable[[], Any], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)


def _scenario(head: Head, name: str, keys: dict[str, Any], *, duration: str, rate: str) -> None:
    stage = {"duration": duration, "arrival": {"process": "constant", "rate": rate}}
    request = {"prompt": "x", "max_tokens": 8, "timeout": "30s"}
    text = yaml.safe_dump({"name": name, "load": {"stages": [stage], "request": request}} | keys)
    (head.working_dir / f"{name}.yaml").write_text(text)


def test_a_job_deploys_on_the_cluster_and_leaves_its_results_where_it_was_told(
    head: Head, tmp_path: Path
) -> None:
    deployment = {
        "engine": "emulated",
        "model": "m",
        "emulated": {"preset": "demo", "startup": "500ms"},
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
    }
    _scenario(head, "deployed", {"deployment": deployment}, duration="2s", rate="5/s")
    done = head.submit("run", "deployed.yaml", "-o", str(tmp_path / "run"), job="deployed")
    assert done.returncode == 0, done.stdout + done.stderr
    found = open_run(tmp_path / "run").manifest
    assert found.status is RunStatus.COMPLETE and found.counts == {"ok": 10}
    assert found.versions["raybench"] == VERSION, "the job's own copy ran, and its actors' (they compare)"
    assert found.exit_code == 0
    assert "load: time" in done.stdout, "progress as plain lines in the job's log"
    assert "deployed" in done.stdout


def test_results_in_the_jobs_own_directory_are_refused(head: Head) -> None:
    _scenario(
        head, "refused", {"target": {"url": "http://127.0.0.1:9", "model": "m"}}, duration="1s", rate="1/s"
    )
    done = head.submit("run", "refused.yaml", job="refused")
    assert done.returncode == 1  # the submit command's own: it knows no other
    assert "which Ray deletes" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_stopped_job_leaves_a_readable_interrupted_run(head: Head, tmp_path: Path) -> None:
    with HostileServer() as server:
        target = {"target": {"url": server.url("never_answers"), "model": "m"}}
        _scenario(head, "stopped", target, duration="10m", rate="20/s")
        where = tmp_path / "run"
        head.submit("run", "stopped.yaml", "-o", str(where), job="stopped", no_wait=True)
        _until(lambda: server.requests["never_answers"] >= 20, timeout_s=60)
        assert head.ray("job", "stop", "--address", head.address, "stopped").returncode == 0
        _until(lambda: open_run(where).manifest.status is not RunStatus.RUNNING, timeout_s=30)
    found = open_run(where).manifest
    assert found.status is RunStatus.INTERRUPTED and found.exit_code == 5
    assert set(found.counts) == {"cancelled", "not_sent"}
    assert sum(found.counts.values()) == found.planned == 12_000
