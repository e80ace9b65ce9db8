"""The real engine: a Serve replica around vLLM.

One deployment, not two: the replica that holds the engine also speaks HTTP. Requests wait in Serve's
router while every slot is taken, where the autoscaling policy sees them; tokens leave as vLLM yields
them; a client that goes away takes its generation with it. `docs/vllm.md` says why this is not built
on `ray.serve.llm`.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from ray import serve
from ray.experimental import internal_kv

from raybench.serving.vllm_engine import Gauge, describe, start, stay_offline_for_local_weights

REPLICA_HEADER = b"x-raybench-replica"
PATIENCE_S = 0.5
"""How long a request whose client has gone may take to end by itself before it is cancelled."""
_NAMESPACE = b"raybench"  # of Ray's key-value store, where replicas leave their descriptions


class Front:
    """ASGI middleware around vLLM's API: names the replica in every response, and turns Serve's way of ending
    a request into the one that vLLM listens for.

    When a client goes, Serve cancels the task that runs the application. vLLM's handlers wait for their
    work in a way that outlives such a cancellation, and would generate to the end for nobody; what stops
    them is the message `http.disconnect`. So the application gets a task of its own, and the message.
    """

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.header = app, (REPLICA_HEADER, name.encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        gone = asyncio.Event()

        async def receive_or_gone() -> Any:
            message = asyncio.ensure_future(receive())
            absence = asyncio.ensure_future(gone.wait())
            try:
                await asyncio.wait((message, absence), return_when=asyncio.FIRST_COMPLETED)
                return {"type": "http.disconnect"} if gone.is_set() else message.result()
            finally:
                message.cancel()
                absence.cancel()

        async def send_named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self.header]
            if not gone.is_set():
                await send(message)

        work = asyncio.ensure_future(self.app(scope, receive_or_gone, send_named))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            gone.set()
            await asyncio.wait((work,), timeout=PATIENCE_S)
            if not work.cancel() and not work.cancelled():
                work.exception()  # read, so that asyncio does not report a failure nobody is there to see
            raise


@serve.ingress()
class VllmReplica:
    """One engine. `arguments` are those of `vllm serve`; `hub_token` stays out of environments that Ray
    shows, and is only used where the node has none of its own.
    """

    async def __init__(  # type: ignore[misc]  # awaited by Serve
        self, arguments: dict[str, Any], hub_token: str | None = None
    ) -> None:
        if hub_token:
            os.environ.setdefault("HF_TOKEN", hub_token)
        stay_offline_for_local_weights(arguments["model"])
        self.arguments = arguments
        self.gauge = Gauge()
        self.engine, self.api = await start(arguments, self.gauge)
        context = serve.get_replica_context()
        self.name = context.replica_id.unique_id
        key = f"{context.app_name}/{self.name}".encode()
        internal_kv._internal_kv_put(key, json.dumps(self.describe()).encode(), namespace=_NAMESPACE)

    def __serve_build_asgi_app__(self) -> Front:
        return Front(self.api, self.name)

    async def check_health(self) -> None:
        """Called by Serve beside the route; raises when the engine has died, so that Serve replaces it."""
        await self.engine.check_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve; what it returns reaches the autoscaling policy and the `replicas` table."""
        return self.gauge.numbers()

    def describe(self) -> dict[str, Any]:
        return describe(self.engine, self.arguments)

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.shutdown()


def descriptions(application: str) -> list[dict[str, Any]]:
    """What the replicas of an application, running or gone, said of themselves when they were ready: one
    description for all that said the same, with their ids under `replicas`.

    Reads Ray's key-value store, so asking neither counts as load nor keeps a replica from going.
    """
    alike: dict[bytes, list[str]] = {}
    for key in sorted(internal_kv._internal_kv_list(f"{application}/".encode(), namespace=_NAMESPACE)):
        if said := internal_kv._internal_kv_get(key, namespace=_NAMESPACE):
            alike.setdefault(said, []).append(key.decode().removeprefix(f"{application}/"))
    return [json.loads(said) | {"replicas": replicas} for said, replicas in alike.items()]


def forget(application: str) -> None:
    """Remove the descriptions of an application; part of removing it."""
    internal_kv._internal_kv_del(f"{application}/".encode(), del_by_prefix=True, namespace=_NAMESPACE)
