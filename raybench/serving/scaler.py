"""The policy inside Serve: what Serve's controller calls at each of its ticks, about ten times a second.

This module is pickled by value and runs in the controller, a process that may have been started by somebody
else with no raybench on its path: nothing of raybench is imported here, and beyond the standard library only
Ray, late. The policy arrives as an object pickled by value as well (`pack`), together with the class of what
it wants to see.

Two things that Serve does not say loudly:
- While no replica runs and a request waits, the policy is not asked: Serve starts the first replica itself,
  and nothing is asked until it runs. The gap makes a policy forget its timers.
- An exception here would cost every application of the controller its tick.
"""

from __future__ import annotations

import base64
import logging
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raybench.policies import Decision, Observation, Policy

NAMESPACE = "raybench"
MONITOR = "raybench-monitor:"  # and the application: the name of the actor that is told
REPORT_S = 0.25  # samples are sent together
ENGINE_S = 0.5  # replicas push their engines' figures about as often
LOOKUP_S = 2.0  # asking for an actor that is not there costs a round trip
KEEP = 600  # samples kept while nobody listens or the monitor is slow: about a minute
COMPLAIN_S = 60.0

logger = logging.getLogger("ray.serve")


def pack(policy: Policy) -> str:
    """The policy as text that `Scaler` takes: by value, with whatever raybench or its own module defines."""
    import sys

    from ray import cloudpickle

    import raybench.policies
    from raybench.policies import Observation

    by_value = [raybench.policies]
    own = sys.modules[type(policy).__module__]
    if not own.__name__.startswith("raybench.policies"):
        by_value.append(own)
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return base64.b64encode(cloudpickle.dumps((policy, Observation))).decode()
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)


class Scaler:
    """Serve makes one for a deployment and calls it at every tick. `depth_source`: see `_load`."""

    def __init__(self, policy: str, depth_source: str = "serve") -> None:
        import pickle

        unpacked: tuple[Policy, type[Observation]] = pickle.loads(base64.b64decode(policy))
        self._policy, self._observation = unpacked
        self._depth_source = depth_source
        self._reporter = _Reporter()
        self._complained_s = -COMPLAIN_S
        self._engine_s = 0.0

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """(target, state): the target that Serve shall have from now on; our state is in this object."""
        target = int(ctx.target_num_replicas)
        try:
            seen = self._look(ctx)
            decision = self._policy.decide(seen)
            self._report(ctx, seen, decision)
            return decision.target, {}
        except Exception:
            if time.monotonic() - self._complained_s >= COMPLAIN_S:
                self._complained_s = time.monotonic()
                logger.exception("raybench: the autoscaling policy failed; the number of replicas stays")
            return target, {}

    def _look(self, ctx: Any) -> Observation:
        target, available = int(ctx.target_num_replicas), int(ctx.current_num_replicas)
        waiting, serving = self._load(ctx)
        return self._observation(
            now_s=time.monotonic(),
            waiting=waiting,
            serving=serving,
            available=available,
            starting=max(0, target - available),  # Serve counts only running ones; the rest is on its way
            target=target,
            busy_replicas=self._busy(ctx),
        )

    def _load(self, ctx: Any) -> tuple[float, float]:
        """Requests waiting and being served, means over the look-back second.

        `serve`: waiting at Serve's routers, and given to replicas. `engine`: of those given to replicas,
        the ones that wait inside the engine count as waiting too.
        """
        waiting = float(ctx.total_queued_requests or 0.0)
        if self._depth_source == "engine":
            figures = ctx.aggregated_metrics or {}
            inside = sum((figures.get("engine_waiting") or {}).values())
            return waiting + inside, float(sum((figures.get("engine_running") or {}).values()))
        return waiting, max(0.0, float(ctx.total_num_requests or 0.0) - waiting)

    def _busy(self, ctx: Any) -> int | None:
        running = (ctx.aggregated_metrics or {}).get("engine_running")
        return sum(1 for value in running.values() if value > 0) if running else None

    def _report(self, ctx: Any, seen: Observation, decision: Decision) -> None:
        sample = {
            "wall_ns": time.time_ns(),
            "mono_ns": time.monotonic_ns(),
            "boot_id": self._reporter.boot_id,
            "policy": getattr(self._policy, "name", type(self._policy).__name__),
            "waiting": seen.waiting,
            "serving": seen.serving,
            "available": seen.available,
            "starting": seen.starting,
            "queue_depth": seen.queue_depth,
            "target_before": seen.target,
            "target": decision.target,
            "reason": decision.reason,
            "window_s": getattr(decision, "window_s", None),  # somebody's own class may answer with its own
        }
        if seen.now_s - self._engine_s >= ENGINE_S:
            self._engine_s = seen.now_s
            sample["engine"] = _by_replica(ctx.aggregated_metrics or {})
        self._reporter.tell(f"{MONITOR}{ctx.app_name}", sample)


def _by_replica(figures: Any) -> dict[str, dict[str, float]]:
    """{metric: {replica: value}} as {replica id: {metric: value}}."""
    found: dict[str, dict[str, float]] = {}
    for metric, values in figures.items():
        for replica, value in values.items():
            found.setdefault(getattr(replica, "unique_id", str(replica)), {})[metric] = float(value)
    return found


class _Reporter:
    """Sends samples to the monitor, if there is one, never waiting for it.

    One message is under way at a time; what comes meanwhile is kept for the next, the oldest dropped when
    there is too much. A monitor that has died is forgotten and looked for again.
    """

    def __init__(self) -> None:
        try:
            self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            self.boot_id = ""
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEEP)
        self._actor: Any = None
        self._answer: Any = None
        self._looked_s = self._sent_s = 0.0

    def tell(self, name: str, sample: dict[str, Any]) -> None:
        self._kept.append(sample)
        now = time.monotonic()
        if self._answer is not None and self._answer.done():
            if self._answer.exception() is not None:
                self._actor = None
            self._answer = None
        if self._actor is None:
            if now - self._looked_s < LOOKUP_S:
                return
            self._looked_s = now
            import ray

            try:
                self._actor = ray.get_actor(name, namespace=NAMESPACE)
            except ValueError:
                return
        # A decision is told at once: what it leads to is seen within a tenth of a second.
        if self._answer is None and (now - self._sent_s >= REPORT_S or sample["reason"]):
            self._sent_s = now
            samples = list(self._kept)
            self._kept.clear()
            self._answer = self._actor.observed.remote(samples).future()
