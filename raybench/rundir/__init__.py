"""The run directory: the one place that knows files.

    outputs/demo-20260131-235959/
        manifest.json                    what was run, how it ended
        schedule/plan-4711-0000.arrows   the plan
        requests/g000-4712-0000.arrows   one writer's rows: Arrow IPC streams, rolled
        timeline/… replicas/… generators/… events/…
        requests.arrow …                 instead of a table's directory, once compacted

Written with `create` and `LocalSink`, read with `open_run`, at any time: while the run is going, after it,
and after every process of it was killed.
"""

from raybench.rundir.compaction import compact
from raybench.rundir.directory import RunDir, create, fresh_path
from raybench.rundir.manifest import RunError
from raybench.rundir.mapped import Mapped, mapped
from raybench.rundir.memory import keep_freed_memory
from raybench.rundir.reader import Run, open_run
from raybench.rundir.segments import LocalSink, is_written

__all__ = [
    "LocalSink",
    "Mapped",
    "Run",
    "RunDir",
    "RunError",
    "compact",
    "create",
    "fresh_path",
    "is_written",
    "keep_freed_memory",
    "mapped",
    "open_run",
]
