"""The Ray Serve application: an OpenAI-compatible API in front of an engine, scaled by a policy.

`build_app` is what Serve's own commands import. Nothing else is imported before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["build_app"]


def build_app(args: dict[str, Any]) -> Application:
    """The application for `serve run`, `serve deploy` and `deployer.deploy`; see `app.build`."""
    from raybench.serving.app import build

    return build(args)
