"""The emulated engine refuses what vLLM refuses, with the same status and an error of the same form."""

import asyncio
import json

import httpx
import pytest
from bad_requests import bad_requests

from raybench.engine_model import from_scenario
from raybench.scenario.models import Emulated
from raybench.serving.emulated import Api
from raybench.serving.engine import EmulatedEngine

MODEL = "emulated"
CONTEXT = from_scenario(Emulated(), 1).context_tokens


@pytest.mark.parametrize("bad", bad_requests(MODEL, CONTEXT), ids=lambda bad: bad[0])
def test_the_emulated_engine_refuses_what_vllm_refuses(bad):
    _, path, body, status, words = bad
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def ask() -> httpx.Response:
        engine = EmulatedEngine(from_scenario(Emulated(startup=0), 1))
        await engine.start()
        api = Api(engine, model=MODEL, emulated=Emulated(), defaults={}, seed=1, replica="r")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            try:
                return await client.post(path, content=content)
            finally:
                engine.stop()

    response = asyncio.run(ask())
    error = response.json()["error"]
    assert response.status_code == error["code"] == status
    assert {"message", "type", "param", "code"} == set(error)
    assert words in error["message"]
