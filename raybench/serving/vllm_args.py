"""From a scenario's deployment to vLLM: its arguments and its environment. Imports neither vLLM nor Ray.

`engine_args` of a scenario are the arguments of `vllm serve`, named as there (`max_model_len` and
`max-model-len` are the same). What a scenario says elsewhere has one place only: the slots are
`slots_per_replica`, the name in the API is `model`, the listener is Serve's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raybench.scenario.models import Deployment

ELSEWHERE = {
    "max_num_seqs": "deployment.slots_per_replica sets it, for Serve and the engine alike",
    "served_model_name": "deployment.model is the name in the API",
    "host": "Serve listens, not the engine; see serving.listen",
    "port": "Serve listens, not the engine; see serving.port",
    "uds": "Serve listens, not the engine; see serving.listen",
    "root_path": "serving.route sets it",
    "headless": "a replica always has its own API",
    "api_server_count": "Serve starts the replicas; see deployment.autoscaling",
    "config": "the scenario is the configuration; name the arguments here",
    "api_key": "a key in a scenario would be recorded; set VLLM_API_KEY in the nodes' environment",
    "override_generation_config": "deployment.sampling sets it",
}
"""Arguments that `engine_args` may not set, and where they belong."""

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
"""What `deployment.sampling` may set: defaults for requests that say nothing themselves."""

SHARE_OF_MEMORY = 4
"""On a CPU without `kv_cache_memory_bytes`, the KV cache gets one part in this many of `replica.memory`.
vLLM's own default is nearly all memory of the machine, of which a replica has only a part.
"""


def on_cpu(deployment: Deployment) -> bool:
    """Whether the engine runs without an accelerator: the scenario asks for no GPU."""
    return deployment.replica.gpus == 0


def arguments(deployment: Deployment) -> dict[str, Any]:
    """The arguments of `vllm serve` for one replica, by names with underscores, `None`s left out.

    Weights come from `engine_args.model` where given, a directory or a hub id, else from `model`. A path that
    begins with a dot is relative to the working directory and has to exist here.

    Raises ValueError, naming the key and what would be right, for what cannot be meant.
    """
    given = {key.replace("-", "_"): value for key, value in deployment.engine_args.items()}
    for key, value in given.items():
        if key in ELSEWHERE:
            raise ValueError(f"deployment.engine_args.{key}: {value!r} cannot be set here: {ELSEWHERE[key]}")
    for key in deployment.sampling:
        if key == "max_tokens":
            raise ValueError(
                "deployment.sampling.max_tokens: vLLM would take it as a limit on every request, not as a "
                "default; set load.request.max_tokens"
            )
        if key not in SAMPLING:
            raise ValueError(
                f"deployment.sampling.{key}: vLLM has no such default; it knows {', '.join(SAMPLING)}"
            )
    resolved: dict[str, Any] = {
        "model": deployment.model,
        "served_model_name": [deployment.model],
        "max_num_seqs": deployment.slots_per_replica,
    }
    if deployment.sampling:
        resolved["override_generation_config"] = dict(deployment.sampling)
    if on_cpu(deployment):
        resolved |= {
            "enforce_eager": True,  # compiling takes 35 s of a replica's start
            "distributed_executor_backend": "uni",  # two processes a replica instead of three
            "kv_cache_memory_bytes": deployment.replica.memory // SHARE_OF_MEMORY,
        }
    resolved = {key: value for key, value in (resolved | given).items() if value is not None}
    resolved["model"] = _located(str(resolved["model"]))
    return resolved


def _located(model: str) -> str:
    """The weights as a replica finds them, which runs in another directory and maybe on another node."""
    if Path(model).is_dir():
        return str(Path(model).absolute())
    if model.startswith("."):
        raise ValueError(f"deployment.engine_args.model: no directory {model} here, in {Path.cwd()}")
    return model  # a hub id, or a directory of the nodes that hold replicas


def environment(deployment: Deployment) -> dict[str, str]:
    """Environment variables of a replica's processes; `deployment.env` wins over what is set here."""
    variables = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if on_cpu(deployment):
        threads = str(max(1, int(deployment.replica.cpus)))
        variables |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # "auto" would bind every replica to the same core
            "OMP_NUM_THREADS": threads,  # unset, the threads of two replicas spin against each other
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # without it the executor "uni" is not honoured
            # eager mode still compiles a kernel at the first request for logprobs: 12 s for everyone
            "TORCHDYNAMO_DISABLE": "1",
        }
    return variables | deployment.env


def command_line(arguments: dict[str, Any], parser: Any) -> list[str]:
    """The arguments as the words that vLLM's own parser reads, so that types and checks are vLLM's.

    Raises ValueError for an argument that this vLLM does not know, with the nearest that it does.
    """
    import difflib
    import json

    options = parser._option_string_actions  # argparse has no public way to ask
    words: list[str] = []
    for key, value in arguments.items():
        flag = "--" + key.replace("_", "-")
        if flag not in options:
            near = difflib.get_close_matches(flag, options, n=1)
            hint = f"; did you mean {near[0].lstrip('-').replace('-', '_')}?" if near else ""
            raise ValueError(f"deployment.engine_args.{key}: this vLLM has no such argument{hint}")
        if value is True and options[flag].nargs == 0:
            words.append(flag)
        elif value is False and options[flag].nargs == 0:
            negative = "--no-" + flag.removeprefix("--")
            words += [negative] if negative in options else []
        elif isinstance(value, list) and options[flag].nargs in ("+", "*"):
            words += [flag, *map(str, value)]
        elif isinstance(value, (dict, list)):
            words.append(f"{flag}={json.dumps(value)}")
        else:
            words.append(f"{flag}={value}")
    return words
