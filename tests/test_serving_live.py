"""The deployment for real, on a local Ray: scaling, streams, clients that hang up, and manners as a guest.

Waiting is always for something to happen, with a limit far beyond what it takes: nothing here measures speed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import ray
from click.testing import CliRunner
from ray import serve

from raybench.cli.main import main
from raybench.scenario.models import Scenario
from raybench.schema import ReplicaState
from raybench.serving import build_app, deployer
from raybench.serving.deployer import Deployed, DeployError, deploy, monitor_name, remove, status

pytestmark = pytest.mark.timeout(240)

MODEL = "emulated-model"
LIMIT_S = 60.0
WINDOW_S = 2.0
TOKENS = 20


def scenario(serving: dict[str, Any] | None = None, **deployment: Any) -> Scenario:
    settings: dict[str, Any] = {
        "engine": "emulated",
        "model": MODEL,
        "slots_per_replica": 2,
        "emulated": {"preset": "demo", "startup": 1.0, "output_tokens": {"mean": TOKENS}},
        "autoscaling": {
            "scale_up_queue_depth": 3,
            "scale_down_queue_depth": 1,
            "autoscaling_window": WINDOW_S,
            "max_replicas": 2,
        },
    }
    load = {
        "stages": [{"duration": 60.0, "arrival": {"process": "constant", "interval": 1.0}}],
        "request": {"prompt": "hello", "timeout": 60.0},
    }
    given = {"name": "live", "deployment": settings | deployment, "serving": serving or {}, "load": load}
    return Scenario.model_validate(given)


@ray.remote(num_cpus=0)
class Monitor:
    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []

    def observed(self, samples: list[dict[str, Any]]) -> None:
        self.samples += samples

    def all(self) -> list[dict[str, Any]]:
        return self.samples


@pytest.fixture(scope="module")
def monitor(ray_cluster: str) -> Any:
    name = monitor_name("raybench")
    return Monitor.options(name=name, namespace="raybench").remote()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def deployed(monitor: Any) -> Iterator[Deployed]:
    found = deploy(scenario())
    yield found
    remove(found.application)


def chat(**given: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True} | given


async def stream(session: aiohttp.ClientSession, url: str, **given: Any) -> tuple[str, int, bool]:
    """One streamed chat: (replica, chunks with content, whether it came to its proper end)."""
    async with session.post(f"{url}/v1/chat/completions", json=chat(**given)) as answer:
        assert answer.status == 200, await answer.text()
        text = (await answer.read()).decode()
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    content = sum(1 for event in events if event["choices"][0]["delta"].get("content"))
    whole = text.endswith("data: [DONE]\n\n") and events[-1]["choices"][0]["finish_reason"] is not None
    return answer.headers["x-raybench-replica"], content, whole


async def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s for {what}"
        await asyncio.sleep(0.1)


def running() -> int:
    seen = status("raybench")
    assert seen is not None
    return sum(replica.state is ReplicaState.RUNNING for replica in seen.replicas)


def total_requests() -> float:
    seen = status("raybench")
    assert seen is not None and seen.total_requests is not None
    return seen.total_requests


def session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=2 * LIMIT_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def test_zero_one_two_one_zero(deployed: Deployed, monitor: Any) -> None:
    """A crowd comes, two long streams stay while the second replica goes, and then nobody is left."""

    async def story() -> None:
        assert running() == 0
        answers: list[tuple[str, int, bool]] = []
        async with session() as client:
            enough = asyncio.Event()

            async def one_of_the_crowd() -> None:
                while not enough.is_set():
                    answers.append(await stream(client, deployed.url))

            crowd = [asyncio.create_task(one_of_the_crowd()) for _ in range(10)]
            await until(lambda: running() == 2, "two replicas")
            enough.set()
            await asyncio.gather(*crowd)
            long = asyncio.gather(
                *(stream(client, deployed.url, ignore_eos=True, max_tokens=240) for _ in range(2))
            )
            await until(lambda: running() == 1, "one replica again")
            assert all(content == 240 and whole for _, content, whole in await long)
            await until(lambda: running() == 0, "no replica")
        assert all(content == TOKENS and whole for _, content, whole in answers)

    asyncio.run(story())
    samples = ray.get(monitor.all.remote())
    decisions = [s for s in samples if s["reason"]]
    assert [(s["target_before"], s["target"]) for s in decisions] == [(1, 2), (2, 1), (1, 0)]
    up, down, last = decisions
    assert up["queue_depth"] >= 3 and up["window_s"] == WINDOW_S
    assert "replicas busy" in down["reason"] and down["queue_depth"] <= 1
    assert (last["waiting"], last["serving"]) == (0, 0)
    assert {"boot_id", "wall_ns", "mono_ns", "available", "starting", "policy"} <= set(up)
    # a window is what separates two steps, on the controller's own clock
    instants = [s["mono_ns"] / 1e9 for s in decisions]
    assert all(later - earlier >= WINDOW_S - 1e-3 for earlier, later in pairwise(instants))
    engines = [figures for s in samples for figures in s.get("engine", {}).values()]
    assert any(figures["engine_running"] > 1 for figures in engines)


def test_the_official_client_works_unchanged(deployed: Deployed) -> None:
    with openai.OpenAI(base_url=f"{deployed.url}/v1", api_key="none", timeout=LIMIT_S) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        assert [card.id for card in client.models.list()] == [MODEL]
        whole = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5)
        assert whole.usage is not None and whole.usage.completion_tokens == 5
        assert whole.choices[0].finish_reason == "length"
        events = list(
            client.chat.completions.create(
                model=MODEL,
                messages=messages,
                max_tokens=5,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        said = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
        assert said == whole.choices[0].message.content
        assert events[-1].usage is not None and events[-1].usage.completion_tokens == 5
        completion = client.completions.create(model=MODEL, prompt="hello", max_tokens=4)
        pieces = [
            e.choices[0].text
            for e in client.completions.create(model=MODEL, prompt="hello", max_tokens=4, stream=True)
        ]
        assert len(pieces) == 4 and "".join(pieces) == completion.choices[0].text
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="another", messages=messages)
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            client.chat.completions.create(model=MODEL, messages=messages, max_tokens=0)
        with pytest.raises(openai.BadRequestError, match="context is 4096"):
            client.completions.create(model=MODEL, prompt="x" * 17_000)


def test_the_request_id_comes_back_once(deployed: Deployed) -> None:
    async def story() -> None:
        async with session() as client:
            body, headers = chat(stream=False, max_tokens=1), {"x-request-id": "r-17"}
            async with client.post(
                f"{deployed.url}/v1/chat/completions", json=body, headers=headers
            ) as answer:
                assert answer.headers.getall("x-request-id") == ["r-17"]
                assert (await answer.json())["id"] == "chatcmpl-r-17"
            async with client.get(f"{deployed.url}/health") as answer:
                assert answer.status == 200

    asyncio.run(story())


def test_hanging_up_frees_a_slot_and_a_place_in_the_queue(deployed: Deployed) -> None:
    """Of two streams in the slots and two more requests in Serve's queue, one each hangs up."""

    async def story() -> None:
        async with session() as client:
            # one replica of two slots; the window is too short for it to go in between
            await stream(client, deployed.url)
            await until(lambda: running() == 1 and total_requests() == 0, "one idle replica")

            async def connect() -> Any:
                return await client.post(f"{deployed.url}/v1/chat/completions", json=chat(ignore_eos=True))

            first, second = [await connect() for _ in range(2)]
            waiting = [asyncio.create_task(connect()) for _ in range(2)]
            await until(lambda: total_requests() == 4, "four requests")
            assert not any(task.done() for task in waiting)
            waiting[1].cancel()
            await until(lambda: total_requests() == 3, "the waiting one to be forgotten")
            first.close()
            third = await asyncio.wait_for(waiting[0], timeout=5.0)  # measured: 20-30 ms
            assert third.status == 200
            second.close()
            third.close()
            await until(lambda: total_requests() == 0, "nobody")

    asyncio.run(story())


# --- manners --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stranger(deployed: Deployed) -> Iterator[str]:
    """Somebody else's application on the same Serve."""

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Theirs:
        def __call__(self, request: Any) -> str:
            return "theirs"

    serve.run(Theirs.bind(), name="theirs", route_prefix="/theirs")  # type: ignore[attr-defined]
    yield "theirs"
    serve.delete("theirs")


def test_names_and_routes_of_others_are_left_alone(deployed: Deployed, stranger: str) -> None:
    with pytest.raises(
        DeployError, match=r"(?s)serving.route: '/raybench'.*serving.application: 'theirs' is taken"
    ):
        deploy(scenario({"application": "theirs"}))
    with pytest.raises(DeployError, match=r"serving.route: '/theirs' is taken .* by application 'theirs'"):
        deploy(scenario({"application": "mine", "route": "/theirs"}))
    with pytest.raises(DeployError, match="not deployed by raybench"):
        remove("theirs")
    assert not remove("never-there")
    assert set(serve.status().applications) == {"raybench", "theirs"}


def test_a_running_serve_is_used_as_it_listens(deployed: Deployed) -> None:
    assert not deployed.started_serve or deployer.started_by_raybench()
    with pytest.raises(
        DeployError, match=r"serving.listen: node, but the running Serve listens on 127.0.0.1"
    ):
        deploy(scenario({"application": "other", "route": "/other", "listen": "node"}))
    with pytest.raises(DeployError, match=r"serving.port: 1234, but the running Serve listens on"):
        deploy(scenario({"application": "other", "route": "/other", "port": 1234}))


def test_the_command_line_deploys_and_removes(deployed: Deployed, stranger: str, tmp_path: Path) -> None:
    written = tmp_path / "small.yaml"
    written.write_text(
        "name: small\n"
        "deployment: {engine: emulated, model: m, emulated: {preset: demo}}\n"
        "serving: {application: second, route: /second}\n"
        "load:\n"
        "  stages: [{duration: 1s, arrival: {process: constant, interval: 1s}}]\n"
        "  request: {prompt: hello}\n"
    )
    done = CliRunner().invoke(main, ["deploy", str(written)])
    assert done.exit_code == 0, done.output
    assert "second is deployed on the Ray at" in done.output and "/second/v1" in done.output
    assert status("second") is not None
    done = CliRunner().invoke(main, ["remove", str(written)])
    assert done.exit_code == 0, done.output
    assert set(serve.status().applications) == {"raybench", "theirs"}  # and Serve still runs
    done = CliRunner().invoke(main, ["remove", "--application", "second"])
    assert done.exit_code == 1 and "no application 'second'" in done.output


def test_a_replica_that_cannot_start_is_said_with_serves_own_words(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    @serve.ingress()
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no weights under /nowhere")

        def __serve_build_asgi_app__(self) -> None: ...

    monkeypatch.setattr("raybench.serving.app._engine", lambda *_: (Broken, ()))
    always_one = {"min_replicas": 1, "max_replicas": 1}
    with pytest.raises(DeployError, match=r"(?s)failed to start.*no weights under /nowhere"):
        deploy(scenario({"application": "broken", "route": "/broken"}, autoscaling=always_one))
    assert status("broken") is None


def test_a_replica_that_takes_too_long_is_said_too(deployed: Deployed) -> None:
    slow = {"preset": "demo", "startup": 30.0}
    always_one = {"min_replicas": 1, "max_replicas": 1}
    with pytest.raises(DeployError, match=r"0 of 1 replicas ran after 1 s \(deployment.startup_timeout\)"):
        deploy(
            scenario(
                {"application": "slow", "route": "/slow"},
                emulated=slow,
                autoscaling=always_one,
                startup_timeout=1.0,
                drain=0.0,
            )
        )
    assert status("slow") is None


def test_serves_own_commands_can_use_the_builder(deployed: Deployed) -> None:
    """Arguments as they stand in a Serve configuration file, units and all."""
    app = build_app(
        {
            "deployment": {"model": "m", "emulated": {"preset": "demo", "startup": "200ms"}},
            "seed": 3,
            "request_timeout": "2m",
        }
    )
    serve.run(app, name="by-hand", route_prefix="/by-hand")
    try:
        assert status("by-hand") is not None
    finally:
        assert remove("by-hand")
