"""A thin `concurrent.futures.Executor` over Ray, for work that knows nothing of Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as futures_wait
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CPUS = 1.0
"""Of one call: each is as busy as a core lets it be."""
CANCELS = 30
"""Times a call is cancelled, a second apart, until it is over: Ray may miss one on its way to a worker."""


class RayExecutor(Executor):
    """Each call is a Ray task on whatever node has a core free. Ray must be initialised; it is left running.

    A call that fails gives its own exception. What was not finished at `shutdown(cancel_futures=True)` is
    cancelled in the cluster as well.
    """

    def __init__(self) -> None:
        import ray

        # One remote function for all calls: it is sent to the cluster once.
        self._remote = ray.remote(num_cpus=CPUS, max_retries=3)(_call)
        self._pending: dict[Future[Any], Any] = {}  # future -> Ray's reference: what a cancellation needs
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._closed:
            raise RuntimeError("submitted after shutdown")
        reference = self._remote.remote(fn, args, kwargs)
        future: Future[T] = reference.future()
        with self._lock:
            self._pending[future] = reference
        future.add_done_callback(self._forget)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        import ray

        self._closed = True
        with self._lock:
            pending = dict(self._pending)
        if cancel_futures:
            for _ in range(CANCELS if wait else 1):
                for reference in pending.values():
                    ray.cancel(reference, force=True)
                left = futures_wait(pending, timeout=1.0).not_done if wait else set()
                pending = {future: pending[future] for future in left}
        elif wait and pending:
            ray.wait(list(pending.values()), num_returns=len(pending))

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._pending.pop(future, None)


def _call(fn: Callable[..., T], args: Any, kwargs: Any) -> T:
    return fn(*args, **kwargs)
