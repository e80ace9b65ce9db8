"""The emulated engine's trouble: clients that hang up, and failures on demand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from serving_bench import FAST, Bench, chat, chunks, on_loop

from raybench.serving.emulated import CutStream

# --- hanging up ------------------------------------------------------------------------------------------


def test_hanging_up_frees_the_slot_for_who_waits() -> None:
    """Two hold the slots, two wait inside the engine; a waiting one leaves, then a running one."""

    async def story(bench: Bench) -> None:
        asking = []
        for _ in range(4):
            client = bench.client("/v1/chat/completions", chat(stream=True, ignore_eos=True))
            asking.append((client, asyncio.create_task(bench.api(client.scope, client.receive, client.send))))
            await asyncio.sleep(0.01)

        def state() -> tuple[float, float]:
            stats = bench.engine.stats()
            return stats["engine_running"], stats["engine_waiting"]

        await asking[1][0].got_body.wait()
        assert state() == (2, 2)
        asking[3][0].gone.set()
        await asking[3][1]
        assert state() == (2, 1)
        assert not asking[2][0].got_body.is_set()
        asking[0][0].gone.set()
        await asking[0][1]
        await asking[2][0].got_body.wait()
        assert state() == (2, 0)
        for client, _ in asking:
            client.gone.set()
        await asyncio.gather(*(task for _, task in asking))
        assert state() == (0, 0)
        assert bench.engine.stats()["kv_cache_usage"] == 0

    on_loop(story, engine=replace(FAST, step_base_s=0.02))


def test_a_cancelled_request_frees_the_slot() -> None:
    """What Serve does when the client goes."""

    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat(stream=True, ignore_eos=True))
        task = asyncio.create_task(bench.api(client.scope, client.receive, client.send))
        await client.got_body.wait()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert bench.engine.stats()["engine_running"] == 0

    on_loop(story, engine=replace(FAST, step_base_s=0.02))


def test_a_client_that_leaves_before_its_body_is_whole_is_nothing() -> None:
    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat())
        client._pieces = []
        client.gone.set()
        await bench.api(client.scope, client.receive, client.send)
        assert client.sent == []

    on_loop(story)


# --- faults on demand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault, status", [("error_500", 500), ("refuse_429", 429)])
def test_refusals_on_demand(fault: str, status: int) -> None:
    async def story(bench: Bench) -> None:
        client = await bench.ask("/v1/chat/completions", chat())
        assert (client.status, client.json["error"]["code"]) == (status, status)

    on_loop(story, faults={fault: 1.0})


def test_a_cut_stream_on_demand_breaks_off_in_the_middle() -> None:
    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat(stream=True))
        with pytest.raises(CutStream):
            await bench.api(client.scope, client.receive, client.send)
        assert len(chunks(client)) == 3
        assert client.sent[-1]["more_body"]
        with pytest.raises(CutStream):
            await bench.ask("/v1/chat/completions", chat())
        assert bench.engine.stats()["engine_running"] == 0

    on_loop(story, faults={"cut_stream": 1.0})


def test_an_error_event_on_demand_ends_the_stream() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.ask("/v1/chat/completions", chat(stream=True))
        assert client.status == 200
        assert len(chunks(client)) == 3
        assert client.events[-1]["error"]["code"] == 500
        assert (await bench.ask("/v1/chat/completions", chat())).status == 500

    on_loop(story, faults={"error_event": 1.0})


def test_never_answering_on_demand_lasts_until_the_client_goes() -> None:
    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat())
        task = asyncio.create_task(bench.api(client.scope, client.receive, client.send))
        await asyncio.sleep(0.05)
        assert not task.done() and client.sent == []
        client.gone.set()
        await task

    on_loop(story, faults={"never_answer": 1.0})


def test_each_fault_meets_its_share_and_the_same_requests_each_time() -> None:
    shares = {"error_500": 0.1, "cut_stream": 0.2, "refuse_429": 0.3}
    first, again = Bench(faults=shares), Bench(faults=shares)
    met = [first.api._fault(f"r{number}") for number in range(5000)]
    assert met == [again.api._fault(f"r{number}") for number in range(5000)]
    for fault, share in shares.items():
        assert met.count(fault) / 5000 == pytest.approx(share, abs=0.02)
    assert met.count(None) / 5000 == pytest.approx(0.4, abs=0.02)


def test_lifespan_is_acknowledged() -> None:
    """Serve refuses an application that does not answer."""

    async def main() -> list[Any]:
        bench, sent = Bench(), []
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await bench.api({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(main()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
