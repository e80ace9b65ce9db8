"""The typed scenario: what one YAML file may say. Validation of single values lives in the types
(`units`), of combinations in the models, and `load.load()` turns every mistake into one line.

Unknown keys are errors everywhere. Durations are seconds as float, sizes are bytes as int, rates are
requests per second: the units are in the types, the YAML says `60s`, `15Gi`, `10/s`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from raybench.scenario.units import Bytes, Rate, Ratio, Seconds


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# --- the deployment ---------------------------------------------------------------------------------


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
    autoscaling_window: Seconds = 60
    min_replicas: NonNegativeInt = 0
    max_replicas: PositiveInt = 2
    threshold: Literal["inclusive", "strict"] = "inclusive"
    step_up_while_starting: bool = False
    depth_source: Literal["serve", "engine"] = "serve"


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


class Deployment(Model):
    engine: Literal["emulated", "vllm"] = "emulated"
    model: str
    replica: Replica = Replica()
    slots_per_replica: PositiveInt = 32
    max_queued_requests: Annotated[int, Field(ge=-1)] = -1
    autoscaling: Autoscaling = Autoscaling()
    emulated: Emulated = Emulated()
    engine_args: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    env: dict[str, str] = {}
    router: Router = Router()
    startup_timeout: Seconds = 1800
    drain: Seconds | None = None  # default: the request timeout


class Serving(Model):
    """Where and how the application listens."""

    listen: Literal["loopback", "node"] = "loopback"
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # 0: any free port, or the running Serve's
    application: str = "raybench"
    route: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_/.-]*$")] = "/raybench"


class Target(Model):
    """An OpenAI-compatible server that is already there."""

    url: str | list[str]
    model: str
    headers: dict[str, str] = {}
    api_key_env: str | None = None
    metrics_url: str | None = None


# --- the load ---------------------------------------------------------------------------------------


class Constant(Model):
    process: Literal["constant"]
    interval: Seconds | None = None
    rate: Rate | None = None


class Poisson(Model):
    process: Literal["poisson"]
    rate: Rate


class Gamma(Model):
    """Gamma-distributed gaps with shape k = `burstiness`: 1 is Poisson, below 1 is burstier."""

    process: Literal["gamma"]
    rate: Rate
    burstiness: Annotated[float, Field(gt=0)]


Arrival = Annotated[Constant | Poisson | Gamma, Field(discriminator="process")]


class Stage(Model):
    duration: Seconds
    arrival: Arrival


class Request(Model):
    prompt: str | None = None
    prompts: str | None = None  # path of a data file, relative to the scenario
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    timeout: Seconds = 300
    stream: bool = True
    extra: dict[str, Any] = {}  # further keys of the request body, sent as they are


class Settle(Model):
    until: Literal["min_replicas"] = "min_replicas"
    at_most: Seconds = 600


class Load(Model):
    api: Literal["chat", "completions"] = "chat"
    stages: Annotated[list[Stage], Field(min_length=1)]
    request: Request
    generators: PositiveInt | Literal["auto"] = "auto"
    warmup: Seconds = 0
    cooldown: Seconds = 0
    settle: Settle | None = None
    record_chunks: bool = True


# --- what is good enough ----------------------------------------------------------------------------


class Objectives(Model):
    """Service objectives: `<ttft|tpot|e2e>_p<percentile>: duration`, and `success_rate: 99.9%`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    success_rate: Ratio | None = None


class Bounds(Model):
    """When a run is VALID."""

    lateness_p99: Seconds | None = None  # default: max(10 ms, 1% of the TTFT objective)
    sent_ratio: Ratio = 0.99
    lost: NonNegativeInt = 0
    clock_uncertainty: Seconds = 0.005
    generator_cpu_ratio: Ratio = 0.9


class Scenario(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    description: str = ""
    seed: NonNegativeInt = 1
    deployment: Deployment | None = None
    target: Target | None = None
    serving: Serving = Serving()
    load: Load
    objectives: Objectives = Objectives()
    valid: Bounds = Bounds()
