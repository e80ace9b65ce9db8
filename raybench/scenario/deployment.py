"""What serves the requests: a deployment to set up, or a target that is already there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveInt

from raybench.scenario.base import Mistake, Model
from raybench.scenario.units import Bytes, PositiveSeconds, Ratio, Seconds


class Replica(Model):
    """Resources of one replica. The emulated engine records them and reserves them only if asked."""

    cpus: Annotated[float, Field(gt=0)] = 4
    memory: Bytes = 15 * 2**30
    gpus: Annotated[float, Field(ge=0)] = 1
    accelerator: str | None = None
    reserve: bool = False


class Autoscaling(Model):
    policy: str = "queue_depth"
    scale_up_queue_depth: Annotated[float, Field(gt=0)] = 5
    scale_down_queue_depth: Annotated[float, Field(ge=0)] = 1
    autoscaling_window: PositiveSeconds = 60
    min_replicas: NonNegativeInt = 0
    max_replicas: PositiveInt = 2
    threshold: Literal["inclusive", "strict"] = "inclusive"
    step_up_while_starting: bool = False
    depth_source: Literal["serve", "engine"] = "serve"
    policy_options: dict[str, Any] = Field(default_factory=dict)  # the policy's own; see policies.make

    def mistakes(self) -> Iterator[Mistake]:
        if self.min_replicas > self.max_replicas:
            yield Mistake(("min_replicas",), f"should be at most max_replicas, which is {self.max_replicas}")
        if self.scale_down_queue_depth >= self.scale_up_queue_depth:
            yield Mistake(
                ("scale_down_queue_depth",),
                f"should be below scale_up_queue_depth, which is {self.scale_up_queue_depth:g}",
            )


class OutputLength(Model):
    """How many tokens the emulated engine answers with, before max_tokens clips it."""

    distribution: Literal["fixed", "exponential", "lognormal", "uniform"] = "fixed"
    mean: Annotated[float, Field(gt=0)] = 128
    sigma: Annotated[float, Field(gt=0)] = 0.5  # lognormal: standard deviation of log(tokens)


class Faults(Model):
    """Failures on demand, each as the share of requests that meet it."""

    error_500: Ratio = 0.0
    cut_stream: Ratio = 0.0
    error_event: Ratio = 0.0
    never_answer: Ratio = 0.0
    refuse_429: Ratio = 0.0

    def mistakes(self) -> Iterator[Mistake]:
        shares = (self.error_500, self.cut_stream, self.error_event, self.never_answer, self.refuse_429)
        if sum(shares) > 1 + 1e-9:
            yield Mistake((), f"the shares add up to {sum(shares):.0%}; together they should be at most 100%")


class Emulated(Model):
    """The emulated engine. A preset gives the figures; any of them can be overridden."""

    preset: str = "llama3-8b-a100"
    startup: Seconds | None = None
    prefill_tokens_per_s: Annotated[float, Field(gt=0)] | None = None
    step_base: Seconds | None = None  # time of a decode step with one sequence
    step_per_sequence: Seconds | None = None  # added per further sequence in the batch
    kv_cache_tokens: PositiveInt | None = None
    output_tokens: OutputLength = OutputLength()
    faults: Faults = Faults()


class Router(Model):
    """Serve's router: how it polls for a free slot while requests wait (facts: 25-500 ms by default)."""

    initial_backoff: Seconds = 0.02
    backoff_multiplier: Annotated[float, Field(ge=1)] = 1.0
    max_backoff: Seconds = 0.03

    def mistakes(self) -> Iterator[Mistake]:
        if self.max_backoff < self.initial_backoff:
            yield Mistake(("max_backoff",), f"should be at least initial_backoff, {self.initial_backoff:g}s")


class Deployment(Model):
    engine: Literal["emulated", "vllm"] = "emulated"
    model: str
    replica: Replica = Replica()
    slots_per_replica: PositiveInt = 32
    max_queued_requests: Annotated[int, Field(ge=-1)] = -1
    autoscaling: Autoscaling = Autoscaling()
    emulated: Emulated = Emulated()
    engine_args: dict[str, Any] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    router: Router = Router()
    startup_timeout: PositiveSeconds = 1800
    drain: Seconds | None = None  # default: the request timeout

    def mistakes(self) -> Iterator[Mistake]:
        for name in self.env:
            if _SECRET_VARIABLE.search(name):
                yield Mistake(
                    ("env", name),
                    "a secret would be kept with the run; leave it out and set it where raybench or the node "
                    "starts (HF_TOKEN is passed on from there)",
                    secret=True,
                )


class Serving(Model):
    """Where and how the application listens."""

    listen: Literal["loopback", "node"] = "loopback"
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # 0: any free port, or the running Serve's
    application: str = "raybench"
    route: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_/.-]*$")] = "/raybench"


_SECRET_VARIABLE = re.compile(r"(?i)(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)($|_)")
_SECRET_HEADERS = {"authorization", "api-key", "x-api-key", "cookie", "proxy-authorization"}
_CLIENT_HEADERS = {"content-length", "transfer-encoding", "connection", "accept-encoding", "x-request-id"}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Target(Model):
    """An OpenAI-compatible server that is already there, or several: requests go to them in turn."""

    url: str | list[str]  # base URLs, with or without a final /v1
    model: str
    headers: dict[str, str] = Field(default_factory=dict)
    api_key_env: str | None = None
    metrics_url: str | None = None

    def mistakes(self) -> Iterator[Mistake]:
        several = isinstance(self.url, list)
        if not self.url:
            yield Mistake(("url",), "at least one URL, such as http://127.0.0.1:8000")
        for i, url in enumerate([self.url] if isinstance(self.url, str) else self.url):
            if right := _url_mistake(url):
                yield Mistake(("url", i) if several else ("url",), right)
        if self.metrics_url is not None and (right := _url_mistake(self.metrics_url)):
            yield Mistake(("metrics_url",), right)
        for name, value in self.headers.items():
            if name.lower() in _SECRET_HEADERS:
                # The scenario is stored with the run and shown in reports.
                right = "secrets do not belong into a scenario: use api_key_env"
                yield Mistake(("headers", name), right, secret=True)
            elif name.lower() in _CLIENT_HEADERS:
                yield Mistake(("headers", name), "is set by the client itself; leave it out")
            elif not _HEADER.fullmatch(name) or "\n" in value or "\r" in value:
                yield Mistake(("headers", name), "is not a valid HTTP header")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            yield Mistake(
                ("api_key_env",), "should be the name of an environment variable, not the key itself"
            )


def _url_mistake(url: str) -> str | None:
    """What would be right, or None for a base URL that is fine."""
    example = "such as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is parsed only when asked for
    except ValueError:
        return f"is not a URL; {example}"
    if parts.scheme not in ("http", "https") or not host:
        return f"should begin with http:// or https:// and name a host, {example}"
    if parts.username or parts.password:
        return "secrets do not belong into a scenario: use api_key_env"
    if parts.fragment:
        return f"should have no #, {example}"
    return None
