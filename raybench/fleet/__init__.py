"""Floor 3: a run on Ray. Generators as actors, a start barrier, clocks, the monitor, supervision."""

import sys
from typing import Any


class _NoPandas:
    """In front of the other finders: there is no pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


def _spare_pandas() -> None:
    """Arrow looks for pandas when it makes its first array, and then never again unless it is needed. That
    costs each generator half a second of its start and 30 MB, for nothing: here it finds none. Where pandas
    is in use already, nothing changes; `to_pandas` imports it later all the same.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


_spare_pandas()
