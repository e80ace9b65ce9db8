"""Being a guest on Ray: attach to what runs, start what does not, end only what was started here."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import raybench


class ClusterError(Exception):
    """Ray could not be reached or started; the text says what would help."""


def in_job() -> bool:
    """Whether this process is the entry point of a `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


PROBE_S = 5.0


def _probe(address: str) -> None:
    """Ray keeps trying an address where nobody listens for minutes; one connection tells at once."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or another name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
    except OSError as error:
        raise ClusterError(
            f"Ray at {address!r} cannot be reached: {error.strerror or error}; "
            "is that the address that `ray start --head` printed?"
        ) from error


@contextmanager
def attached(address: str | None = None) -> Iterator[bool]:
    """Connects to Ray for the duration; yields whether this call started a cluster of its own.

    `address`, else $RAY_ADDRESS, names a running cluster; without either a private one is started on
    this machine, in its own directory, and taken down at the end. A Ray that is already initialised in
    this process is used and left as it is.
    """
    import ray

    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        # Workers must find raybench: a job's working directory brings it, otherwise we do.
        package = str(Path(raybench.__file__).parent)
        runtime_env = {} if in_job() else {"py_modules": [package]}
        _probe(address)
        try:
            ray.init(address=address, runtime_env=runtime_env, namespace="raybench", **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"Ray at {address!r} cannot be reached: {error}\n"
                "start one with `ray start --head`, or leave --address and RAY_ADDRESS away for a private one"
            ) from error
        try:
            yield False
        finally:
            ray.shutdown()
        return

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    directory = tempfile.mkdtemp(prefix="rb-", dir="/tmp")  # short: Ray's sockets live below it
    try:
        ray.init(
            address="local",
            num_cpus=max(8, os.cpu_count() or 1),  # actors here ask for almost nothing; see `actor`
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            namespace="raybench",
            _temp_dir=directory,
            **quiet,
        )
    except Exception as error:  # Ray raises plain ones when its processes do not come up in time
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)
        raise ClusterError(f"Ray could not be started on this machine: {error}") from error
    try:
        yield True
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)
