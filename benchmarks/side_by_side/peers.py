"""The generators that can take part: how each is asked for a load, and what it cannot be asked for.

A peer's `command` returns what to run, and what to add to the environment, for a load against a URL, with
files in a scratch directory; None where the peer has no such load. `scale` makes its loads smaller where
it is so slow that the same number of requests would take minutes: figures are per chunk and per request.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from side_by_side.measure import Load

HERE = Path(__file__).parent
Command = tuple[list[str], dict[str, str]]
PATH = "/v1/chat/completions"
PROMPT_TOKENS = 16
MODEL = "null-model"

# Nothing may be downloaded while a peer runs, and no peer needs to report home.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Place:
    """Where a peer is and what it may use."""

    path: Path  # a virtual environment or a binary
    scratch: Path  # a directory for this command's files
    tokenizer: Path | None = None

    def script(self, name: str) -> str:
        """A script of the virtual environment, or the binary itself."""
        return str(self.path / "bin" / name if self.path.is_dir() else self.path)

    @property
    def python(self) -> str:
        return self.script("python")


@dataclass(frozen=True)
class Peer:
    name: str
    command: Callable[[Load, str, Place], Command | None]
    scale: float = 1.0  # of the number of requests in loads that are only there to be costly
    exact: bool = True  # it can be told how many requests to send
    asks_first: int = 0  # POST requests of its own before the load
    tokenizer: bool = False  # it insists on one
    parses: bool = True  # it finds the chunks in what it reads

    def sized(self, load: Load) -> Load:
        """The load in this peer's size. Callers are kept busy: never under two requests each."""
        if load.answer.gap_s or load.concurrency is None or load.requests <= 10 * load.concurrency:
            return load
        requests = max(int(load.requests * self.scale), 5 * load.concurrency)
        return dataclasses.replace(load, requests=requests)


def scenario(load: Load, url: str) -> dict[str, Any]:
    """The load as a scenario of raybench."""
    if load.rate_per_s:
        arrival = {"process": "constant", "rate": f"{load.rate_per_s:g}/s"}
        stage: dict[str, Any] = {"duration": f"{load.requests / load.rate_per_s:g}s", "arrival": arrival}
    else:
        stage = {"duration": "10m", "requests": load.requests}
    asked = {"prompt": "Describe it.", "max_tokens": max(load.answer.tokens, 1), "timeout": "60s"}
    keys: dict[str, Any] = {"api": "chat", "generators": 1, "stages": [stage], "request": asked}
    if load.concurrency:
        keys["concurrency"] = load.concurrency
    return {"name": load.name, "target": {"url": url, "model": MODEL}, "load": keys}


def _scenario_file(load: Load, url: str, scratch: Path) -> str:
    path = scratch / "scenario.yaml"
    path.write_text(json.dumps(scenario(load, url)))  # JSON is YAML
    return str(path)


def raybench(load: Load, url: str, place: Place) -> Command:
    rows = place.scratch / "rows"
    shutil.rmtree(rows, ignore_errors=True)
    rows.mkdir()
    adapter = str(HERE / "raybench_generator.py")
    return [place.python, "-P", adapter, _scenario_file(load, url, place.scratch), str(rows)], {}


def raybench_run(load: Load, url: str, place: Place) -> Command | None:
    """The whole of `raybench run`, Ray's own start and the report included, for its wall time only: Ray does
    not wait for the processes it starts, so what they cost never reaches whoever waits for Ray.
    """
    if load.name != "ten":
        return None
    output = str(place.scratch / "run")
    shutil.rmtree(output, ignore_errors=True)
    command = [place.script("raybench"), "run", _scenario_file(load, url, place.scratch)]
    return [*command, "--output", output], {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def busy_sender(load: Load, url: str, place: Place) -> Command | None:
    if not load.rate_per_s:
        return None
    adapter = str(HERE / "busy_sender.py")
    return [place.python, "-P", adapter, urlsplit(url).netloc, str(load.requests), str(load.rate_per_s)], {}


def vllm(load: Load, url: str, place: Place) -> Command:
    how = ["--max-concurrency", str(load.concurrency)]
    if load.rate_per_s:
        how = ["--request-rate", f"{load.rate_per_s:g}", "--burstiness", "inf"]
    command = [place.python, "-P", str(HERE / "vllm_bench.py"), "bench", "serve", "--backend", "openai-chat"]
    command += ["--base-url", url, "--endpoint", PATH, "--model", MODEL, "--tokenizer", str(place.tokenizer)]
    command += ["--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)]
    command += ["--random-output-len", str(load.answer.tokens), "--num-prompts", str(load.requests)]
    return [*command, "--disable-tqdm", "--seed", "1", *how], {}


def guidellm(load: Load, url: str, place: Place) -> Command:
    how = f"kind=concurrent,streams={load.concurrency}"
    if load.rate_per_s:
        how = f"kind=constant,rate={load.rate_per_s:g}"
    data = f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={load.answer.tokens}"
    command = [place.script("guidellm"), "run", "--backend", f"kind=openai_http,target={url},model={MODEL}"]
    command += ["--profile", how, "--constraint", f"kind=max_requests,count={load.requests}"]
    command += ["--tokenizer", f"kind=hf_auto,model={place.tokenizer}", "--data", data]
    command += ["--output", f"kind=json,path={place.scratch / 'guidellm.json'}", "--disable-progress"]
    # By default ten processes, each of which imports everything anew; all of them on one core help nobody.
    return command, {"GUIDELLM__MAX_WORKER_PROCESSES": "1"}


def aiperf(load: Load, url: str, place: Place) -> Command:
    # Its processes take a directory for the name of a hub's tokenizer: it is given one in a hub's cache.
    home = place.scratch / "hub"
    _cached(home / "hub" / "models--local--tiny", place.tokenizer)
    how = ["--concurrency", str(load.concurrency)]
    if load.rate_per_s:
        how = ["--request-rate", f"{load.rate_per_s:g}", "--arrival-pattern", "constant"]
    command = [place.script("aiperf"), "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat"]
    command += ["--streaming", "--tokenizer", "local/tiny", "--ui", "none", "--random-seed", "1"]
    command += ["--synthetic-input-tokens-mean", str(PROMPT_TOKENS), "--request-count", str(load.requests)]
    command += ["--output-tokens-mean", str(load.answer.tokens), "--no-gpu-telemetry", "--no-server-metrics"]
    return [*command, "--artifact-dir", str(place.scratch / "aiperf"), *how], {"HF_HOME": str(home)}


def _cached(model: Path, files: Path | None) -> None:
    """Lay out `files` as the hub's client keeps a model it has downloaded."""
    commit = "0" * 40
    if files is not None and not model.exists():
        for part in ("refs", "snapshots"):
            (model / part).mkdir(parents=True)
        (model / "refs" / "main").write_text(commit)
        (model / "snapshots" / commit).symlink_to(files)


def locust(load: Load, url: str, place: Place) -> Command:
    users = str(load.concurrency or 100)
    command = [place.script("locust"), "-f", str(HERE / "locustfile.py"), "--headless", "--host", url]
    command += ["-u", users, "-r", users, "--only-summary", "--stop-timeout", "5"]
    given = {"REQUESTS": str(load.requests), "TOKENS": str(load.answer.tokens)}
    return command, given | ({"RATE": str(load.rate_per_s)} if load.rate_per_s else {})


def hey(load: Load, url: str, place: Place) -> Command | None:
    if load.rate_per_s:
        return None  # its rate is of each worker, and they all tick at once
    body = (
        '{"model":"null","stream":true,"messages":[{"role":"user","content":"Describe it."}],"max_tokens":64}'
    )
    command = [place.script("hey"), "-n", str(load.requests), "-c", str(load.concurrency), "-cpus", "1"]
    return [*command, "-m", "POST", "-T", "application/json", "-d", body, url + PATH], {}


def wrk(load: Load, url: str, place: Place) -> Command | None:
    if load.rate_per_s or load.name in ("few", "ten"):
        return None  # it knows neither a rate nor a number of requests, only a time
    command = [place.script("wrk"), "-t1", f"-c{load.concurrency}", "-d5s"]
    return [*command, "-s", str(HERE / "post.lua"), url], {}


PEERS = {
    peer.name: peer
    for peer in (
        Peer("raybench", raybench),
        Peer("raybench-run", raybench_run),
        Peer("busy-sender", busy_sender, parses=False),
        Peer("vllm", vllm, scale=0.4, tokenizer=True, asks_first=1),  # for /tokenize
        Peer("locust", locust, scale=0.4),
        Peer("aiperf", aiperf, scale=0.05, tokenizer=True),
        Peer("guidellm", guidellm, scale=0.05, tokenizer=True),
        Peer("hey", hey, parses=False),
        Peer("wrk", wrk, exact=False, parses=False),
    )
}
OWN = ("raybench", "raybench-run", "busy-sender")
"""Those that come with the repository and run on the Python that runs the benchmark."""


def missing(name: str, path: Path) -> str | None:
    """Why a peer cannot be run from there; None where it can."""
    needed = {"vllm": "python", "raybench": "python", "raybench-run": "raybench", "busy-sender": "python"}
    script = Place(path, path).script(needed.get(name, name))
    if not os.access(script, os.X_OK):
        return f"{script} is not there or cannot be executed"
    return None


def own_environment() -> Path:
    return Path(sys.prefix)
