"""For tests on the real engine: whether it can be had here, and a tiny Llama to run on it."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest


def require_vllm() -> None:
    """Skip the calling module where vLLM is not installed; fail instead with RAYBENCH_REQUIRE_VLLM=1."""
    if importlib.util.find_spec("vllm") is None:
        reason = "vLLM is not installed (tools/install.sh says why its CPU wheel could not be had)"
        if os.environ.get("RAYBENCH_REQUIRE_VLLM") == "1":
            pytest.fail(f"{reason}, and RAYBENCH_REQUIRE_VLLM=1 asks for it", pytrace=False)
        pytest.skip(reason, allow_module_level=True)


@functools.cache
def tiny_llama() -> Path:
    """The model's directory, made on first use and kept in the system's temporary directory."""
    path = Path(__file__).parents[1] / "tools" / "tiny_llama.py"
    spec = importlib.util.spec_from_file_location("raybench_tools_tiny_llama", path)
    assert spec and spec.loader
    maker = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = maker
    spec.loader.exec_module(maker)
    made: Path = maker.make(Path(tempfile.gettempdir()) / f"raybench-tiny-llama-{os.getuid()}")
    return made
