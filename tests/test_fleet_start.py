"""What a run's processes do not load, since all of them wait for it."""

from __future__ import annotations

import subprocess
import sys


def test_generators_do_not_load_pandas_and_who_wants_it_still_has_it() -> None:
    code = (
        "import sys, raybench.fleet.actor, raybench.fleet.monitor, pyarrow as pa;"
        "pa.array(['a']); print('pandas' in sys.modules, 'ray.serve' in sys.modules);"
        "import pandas; print(pa.array([1]).to_pandas().tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["False False", "[1]"], done.stderr
