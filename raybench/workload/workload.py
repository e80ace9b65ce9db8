"""The workload: which prompt each request carries, how long it may answer, and the request's body."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from raybench.scenario.arrivals import Trace
from raybench.scenario.models import Scenario
from raybench.workload import traces
from raybench.workload.sources import Messages, Plan, Traced, nothing, source

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_CACHE_BYTES = 64 * 2**20


class Workload:
    """One endless sequence of arrivals: the k-th one gets the k-th, whatever its stage. Stages that replay
    a trace with its lengths have their prompts from there instead.

    Can be pickled with its data, so that a process without the data files can render bodies too.
    """

    def __init__(self, scenario: Scenario) -> None:
        """Raises DataFileError where a data file cannot be used."""
        load = scenario.load
        served = scenario.deployment or scenario.target
        assert served is not None, "a scenario has a deployment or a target"
        self._request, self._api, self._model = load.request, load.api, served.model
        self._traced: list[tuple[int, int, Traced]] = []  # stage, first prompt id, source
        ids = 0
        for number, stage in enumerate(load.stages):
            if isinstance(stage.arrival, Trace) and stage.arrival.lengths:
                one = Traced(traces.read(stage.arrival), scenario.seed)
                self._traced.append((number, ids, one))
                ids += len(one)
        self._own_ids = ids  # the scenario's own prompts are numbered after the traces'
        self._source = source(load.request, scenario.seed, load.api == "raw")
        self._bodies: OrderedDict[tuple[int, int | None], bytes] = OrderedDict()
        self._cached_bytes = 0

    @property
    def path(self) -> str:
        """The path that requests are posted to, after the server's base URL."""
        return self._request.path or _PATHS[self._api]

    def plan(self, arrivals: int) -> Plan:
        """The first `arrivals` of the scenario's own sequence."""
        assert self._source is not None or not arrivals, "checked with the scenario"
        if self._source is None:
            return nothing()
        plan = self._source.plan(arrivals)
        return plan._replace(prompt_id=plan.prompt_id + self._own_ids)

    def plan_trace(self, stage: int, first: int, n: int) -> Plan | None:
        """Rows `first` to `first` + n - 1 of the stage's trace; None where its lengths are not replayed."""
        for number, ids, one in self._traced:
            if number == stage:
                plan = one.plan_rows(first, n)
                return plan._replace(prompt_id=plan.prompt_id + ids)
        return None

    def body(self, prompt_id: int, max_tokens: int | None) -> bytes:
        """The body of a request, UTF-8. Rendered once and kept, within a bound on memory."""
        key = prompt_id, max_tokens
        found = self._bodies.get(key)
        if found is None:
            found = self._render(self._messages(prompt_id), max_tokens)
            self._bodies[key] = found
            self._cached_bytes += len(found)
            while self._cached_bytes > _CACHE_BYTES and len(self._bodies) > 1:
                _, dropped = self._bodies.popitem(last=False)
                self._cached_bytes -= len(dropped)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bodies": OrderedDict(), "_cached_bytes": 0}

    def _messages(self, prompt_id: int) -> Messages:
        for _, ids, one in reversed(self._traced):
            if ids <= prompt_id < ids + len(one):
                return one.messages(prompt_id - ids)
        assert self._source is not None, f"prompt {prompt_id} is not of this workload"
        return self._source.messages(prompt_id - self._own_ids)

    def _render(self, messages: Messages, max_tokens: int | None) -> bytes:
        request = self._request
        if self._api == "raw":
            return str(messages[0][1]).encode()
        if request.system is not None:
            messages = [("system", request.system), *messages]
        body: dict[str, Any] = {"model": self._model}
        if self._api == "chat":
            body["messages"] = [{"role": role, "content": content} for role, content in messages]
        else:
            body["prompt"] = "\n\n".join(str(content) for _, content in messages)
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
        body["stream"] = request.stream
        if request.stream:
            body["stream_options"] = {"include_usage": True}  # the count of tokens comes from the server
        body.update(request.extra)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
