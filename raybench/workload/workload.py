"""The workload: which prompt each request carries, how long it may answer, and the request's body."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raybench.scenario.models import Scenario
from raybench.workload import files

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_CACHE_BYTES = 64 * 2**20


class Plan(NamedTuple):
    """The workload's columns of the schedule: int32 arrays, one value a request."""

    prompt_id: pa.Array
    prompt_tokens: pa.Array
    max_tokens: pa.Array


class Workload:
    """One endless sequence of requests: the k-th arrival gets the k-th, whatever its stage.

    Can be pickled with its data, so that a process without the data files can render bodies too.
    """

    def __init__(self, scenario: Scenario) -> None:
        """Raises DataFileError where a prompt file cannot be used."""
        load = scenario.load
        served = scenario.deployment or scenario.target
        assert served is not None, "a scenario has a deployment or a target"
        self._request, self._api, self._model = load.request, load.api, served.model
        self._prompts = files.prompts(load) if load.request.prompts is not None else None
        self._bodies: OrderedDict[tuple[int, int | None], bytes] = OrderedDict()
        self._cached_bytes = 0

    @property
    def path(self) -> str:
        """The path that requests are posted to, after the server's base URL."""
        return _PATHS[self._api]

    def plan(self, n: int) -> Plan:
        """The first `n` requests of the sequence."""
        count = len(self._prompts) if self._prompts is not None else 1
        ids = np.arange(n, dtype=np.int64) % count
        limits = pa.nulls(n, pa.int32())
        if self._request.max_tokens is not None:
            limits = pa.array(np.full(n, self._request.max_tokens, dtype=np.int32))
        elif self._prompts is not None:
            limits = self._prompts.max_tokens.take(pa.array(ids))
        return Plan(pa.array(ids.astype(np.int32)), pa.nulls(n, pa.int32()), limits)

    def body(self, prompt_id: int, max_tokens: int | None) -> bytes:
        """The JSON body of a request, UTF-8. Rendered once and kept, within a bound on memory."""
        key = prompt_id, max_tokens
        found = self._bodies.get(key)
        if found is None:
            found = self._render(self._text(prompt_id), max_tokens)
            self._bodies[key] = found
            self._cached_bytes += len(found)
            while self._cached_bytes > _CACHE_BYTES and len(self._bodies) > 1:
                _, dropped = self._bodies.popitem(last=False)
                self._cached_bytes -= len(dropped)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bodies": OrderedDict(), "_cached_bytes": 0}

    def _text(self, prompt_id: int) -> str:
        if self._prompts is not None:
            return str(self._prompts.text[prompt_id].as_py())
        return self._request.prompt or ""

    def _render(self, text: str, max_tokens: int | None) -> bytes:
        request = self._request
        body: dict[str, Any] = {"model": self._model}
        if self._api == "chat":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt"] = text
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
