"""What several test modules share: one Ray cluster a module, in its own short directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A shared machine may stall anything for a while; what an example costs is no property of the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def start_ray(directory: str, **more: Any) -> str:
    """Ray gives its node 30 s to come up; on a machine with other work a second try is worth it."""
    import ray

    for last in (False, True):
        try:
            context = ray.init(
                num_cpus=8,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=200 * 2**20,
                _temp_dir=directory,
                **more,
            )
            return str(context.address_info["gcs_address"])
        except Exception:
            ray.shutdown()
            if last:
                raise
    raise AssertionError


def note_addresses_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `ray.cluster_utils.Cluster` notes its address: beside the cluster's own files, not in /tmp/ray,
    which is not there on a fresh machine and is somebody else's on any other."""
    monkeypatch.setenv("RAY_TMPDIR", str(directory))
    (directory / "ray").mkdir()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """A local Ray started for this module alone; yields its address. Unix sockets need a short directory."""
    import ray

    directory = tempfile.mkdtemp(prefix="rb", dir="/tmp")
    try:
        yield start_ray(directory)
    finally:
        try:
            from ray import serve

            serve.shutdown()
        finally:
            ray.shutdown()
            shutil.rmtree(directory, ignore_errors=True)
