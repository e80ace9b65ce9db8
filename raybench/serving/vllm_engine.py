"""vLLM inside one replica: the engine, its numbers, and its own OpenAI API. Imports vLLM when called.

The API is vLLM's: its routes, chat templates, sampling, logprobs, usage and errors, built by the same
functions that `vllm serve` calls. Serve takes the place of vLLM's listener and nothing else.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, NoReturn

from raybench.serving.vllm_args import command_line


class Gauge:
    """The engine's queue as numbers: how many requests run, how many wait, how full the KV cache is.

    vLLM's scheduler reports after every step, so its figures stand still while nothing steps. The count
    of unfinished requests is kept by the front end as requests come and go: it bounds the one and, less
    those running, is the number waiting, which includes a request on its way to the scheduler.
    """

    def __init__(self) -> None:
        self.running = 0
        self.kv_cache_usage = 0.0
        self.engine: Any = None

    def numbers(self) -> dict[str, float]:
        """{engine_running, engine_waiting: requests; kv_cache_usage: ratio, 0 to 1}."""
        unfinished = self.engine.get_num_unfinished_requests() if self.engine else 0
        running = min(self.running, unfinished)
        return {
            "engine_running": float(running),
            "engine_waiting": float(unfinished - running),
            "kv_cache_usage": float(self.kv_cache_usage) if unfinished else 0.0,
        }

    def logger(self) -> type:
        """A stat logger for vLLM that keeps this gauge."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        gauge = self

        class QueueLogger(StatLoggerBase):  # type: ignore[misc]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(self, scheduler_stats: Any, *others: Any, **named: Any) -> None:
                if scheduler_stats is not None:
                    gauge.running = scheduler_stats.num_running_reqs
                    gauge.kv_cache_usage = scheduler_stats.kv_cache_usage

            def log_engine_initialized(self) -> None:
                pass

        return QueueLogger


def parse(arguments: dict[str, Any]) -> Any:
    """vLLM's own namespace for these arguments; ValueError with vLLM's words if it refuses them."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"deployment.engine_args: vLLM says: {message}")

    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = refuse  # argparse would end the process
    namespace = parser.parse_args(command_line(arguments, parser))
    validate_parsed_serve_args(namespace)
    return namespace


def stay_offline_for_local_weights(model: str) -> None:
    """Keep the hub's client from asking the network about a model that lies on this node's disk."""
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


async def start(arguments: dict[str, Any], gauge: Gauge) -> tuple[Any, Any]:
    """Start the engine and build the API: (AsyncLLM, FastAPI application). Runs in the serving event loop.

    Takes as long as the model takes to load; raises what vLLM raises when it cannot.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    namespace = parse(arguments)
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs.from_cli_args(namespace),
        usage_context=UsageContext.OPENAI_API_SERVER,
        stat_loggers=[gauge.logger()],
    )
    gauge.engine = engine
    tasks = await engine.get_supported_tasks()
    app = build_app(namespace, tasks, engine.model_config)
    await init_app_state(engine, app.state, namespace, tasks)
    return engine, app


def describe(engine: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a report says about the engine: its version, device, number format, limits and arguments."""
    import vllm

    config = engine.vllm_config
    blocks = config.cache_config.num_gpu_blocks
    return {
        "engine": "vllm",
        "version": vllm.__version__,
        "device": device(config.device_config.device_type),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "context_tokens": config.model_config.max_model_len,
        "kv_cache_tokens": blocks * config.cache_config.block_size if blocks else None,
        "engine_args": {key: value for key, value in arguments.items() if key != "served_model_name"},
    }


def device(kind: str) -> str:
    """The device in words: the GPU's product name, or the CPU's and the number of threads used."""
    if kind == "cpu":
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.is_file() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        return f"CPU, {names[0] if names else platform.machine()}, {threads} thread(s)"
    from vllm.platforms import current_platform

    return f"{kind}, {current_platform.get_device_name()}"
