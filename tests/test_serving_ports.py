"""A port of raybench's own choice: free when chosen, and given up for another if it is taken meanwhile."""

from __future__ import annotations

import json
import socket
import urllib.request

import pytest
from ray import serve

from raybench.scenario.models import Scenario
from raybench.serving import deployer, ports
from raybench.serving.deployer import DeployError


def test_a_port_that_is_listened_on_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "FIRST", port)
        monkeypatch.setattr(ports, "LAST", port)
        with pytest.raises(OSError, match=f"no free port found from {port} to {port}"):
            ports.free_port()
    assert ports.free_port() == port


def _scenario(**serving: object) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "small",
            "deployment": {"engine": "emulated", "model": "m", "emulated": {"preset": "demo"}},
            "serving": serving,
            "load": {
                "stages": [{"duration": "1s", "arrival": {"process": "constant", "interval": "1s"}}],
                "request": {"prompt": "hello"},
            },
        }
    )


@pytest.mark.usefixtures("ray_cluster")
def test_a_port_taken_meanwhile_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeployError, match=f"^serving.port: {port} is taken"):  # no other will do
            deployer.deploy(_scenario(port=port))
        chosen = [port, ports.free_port()]
        monkeypatch.setattr(deployer, "free_port", iter(chosen).__next__)
        try:
            deployed = deployer.deploy(_scenario())
            assert deployed.url == f"http://127.0.0.1:{chosen[1]}/raybench"
            with urllib.request.urlopen(f"{deployed.url}/v1/models", timeout=30) as answer:
                assert json.load(answer)["data"][0]["id"] == "m"
        finally:
            serve.shutdown()
