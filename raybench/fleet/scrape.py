"""Reading an external target's Prometheus page: requests running and waiting in its engines, KV cache.

The page is somebody else's: no more than `MOST_BYTES` of it are read, for no longer than `TIMEOUT_S` in all,
redirects are not followed, and only the lines of the three gauges reach the parser. Nothing here listens, no
key and no header of the target's is sent. A page that cannot be read is told and tried again a second later.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

PERIOD_S = 1.0
TIMEOUT_S = 5.0
"""From the beginning of a read to the page's last byte, whatever trickles in meanwhile."""
MOST_BYTES = 4 * 2**20
MOST_LINES = 4096
"""Of the three gauges, and `MOST_CHARACTERS` each."""
MOST_CHARACTERS = 4096
MOST_ENGINES = 256

RUNNING, WAITING = "num_requests_running", "num_requests_waiting"
KV_CACHE = ("kv_cache_usage_perc", "gpu_cache_usage_perc")
"""The name of today and the one before it. Both are shares from 0 to 1 whatever their names say."""
SHOWN = f"vllm:{RUNNING}, vllm:{WAITING} or vllm:{KV_CACHE[0]}"

# vllm:NAME of vLLM's own page, vllm_NAME where Ray's exporter renames it, with or without Ray's prefix
_GAUGE = re.compile(
    rb"^(?:# TYPE )?(?:ray_)?vllm[:_](?:" + "|".join((RUNNING, WAITING, *KV_CACHE)).encode() + rb")[ \t{].*$",
    re.MULTILINE,
)
_NAME = re.compile(r"(?:ray_)?vllm[:_](.*)")
_WHO = ("ReplicaId", "replica", "pod", "instance", "engine")
"""Labels that tell one engine from another; series that differ in others only are added up."""


class PageError(Exception):
    """The page could not be read; the text says why and ends without a full stop."""


@dataclass(frozen=True)
class Engine:
    """One engine as its page has it; None for what the page does not say."""

    name: str
    waiting: float | None = None
    running: float | None = None
    kv_cache: float | None = None  # share of the cache in use, 0 to 1


@dataclass(frozen=True)
class Page:
    """What one read found. `t_ns`: the middle of the exchange, on this host's monotonic clock."""

    t_ns: int
    engines: tuple[Engine, ...]


@dataclass(frozen=True)
class Reads:
    """How the reads of a page went so far."""

    url: str
    read: int = 0
    failed: int = 0
    first_failure: str = ""
    engines: int = 0  # on the page read last
    missing: tuple[str, ...] = ()  # of waiting, running, KV cache use: what no page read so far had

    @property
    def problems(self) -> tuple[str, ...]:
        """At most one, in words that stay the same."""
        if not self.failed:
            return ()
        return (f"{self.url} could not be read: {self.first_failure}; the timeline lacks what it tells then",)

    def in_words(self) -> str:
        """For the report: where the figures are from, and what is not among them."""
        if not self.read:
            return f"none: {self.url} could not be read once ({self.first_failure or 'it was not asked'})"
        said = f"waiting, serving and KV cache use from {self.url}, read {self.read} times"
        said += f", {self.engines} engine{'s' * (self.engines != 1)} on it"
        if self.missing:
            said += f"; it has no {' and no '.join(self.missing)}"
        return said + (f"; {self.failed} reads failed ({self.first_failure})" if self.failed else "")


def page_url(metrics_url: str) -> str:
    """The scenario's `metrics_url`, with `/metrics` where it names a server only."""
    parts = urlsplit(metrics_url)
    return metrics_url if parts.path.strip("/") or parts.query else metrics_url.rstrip("/") + "/metrics"


def engines(page: bytes, model: str) -> tuple[Engine, ...]:
    """The engines on a page, in order of their names. Where the label `model_name` has the value `model` on
    some series, only those count: a gateway's page may be about several models. Raises PageError.
    """
    from prometheus_client.parser import text_string_to_metric_families

    lines = [found[0] for found in _GAUGE.finditer(page)]
    if not lines:
        raise PageError(f"the page has no {SHOWN}")
    if len(lines) > MOST_LINES or max(map(len, lines)) > MOST_CHARACTERS:
        raise PageError(
            f"more than {MOST_LINES} lines of these gauges, or {MOST_CHARACTERS} characters in one line"
        )
    text = b"\n".join(lines).decode("utf-8", "replace") + "\n"
    try:
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    except Exception as error:  # the parser's errors on broken text are of several kinds
        raise PageError(f"the page is not in Prometheus' text format: {str(error)[:200]}") from error
    if any(s.labels.get("model_name") == model for s in samples):
        samples = [s for s in samples if s.labels.get("model_name") == model]
    return _by_engine((s.name, s.labels, s.value) for s in samples)


def _by_engine(samples: Iterable[tuple[str, dict[str, str], float]]) -> tuple[Engine, ...]:
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in samples:
        figure = _NAME.fullmatch(name)
        if figure is None:
            continue
        if not math.isfinite(value) or value < 0:
            raise PageError(f"{name} is {value}")
        who = ",".join(f"{label}={labels[label]}" for label in _WHO if labels.get(label))[:200] or "engine"
        if who not in found and len(found) == MOST_ENGINES:
            raise PageError(f"more than {MOST_ENGINES} engines on the page")
        its = found.setdefault(who, {})
        is_share = figure[1] in KV_CACHE
        its[figure[1]] = max(its.get(figure[1], 0.0), value) if is_share else its.get(figure[1], 0.0) + value
    if not found:
        raise PageError(f"the page has no {SHOWN}")

    def share(its: dict[str, float]) -> float | None:
        used = next((its[name] for name in KV_CACHE if name in its), None)
        return used if used is not None and used <= 1.0 else None  # a share above 1 means something else

    return tuple(
        Engine(who, its.get(WAITING), its.get(RUNNING), share(its)) for who, its in sorted(found.items())
    )


class Scraper:
    """Reads a page once a second on a thread of its own, until `stop`."""

    def __init__(
        self,
        metrics_url: str,
        model: str,
        tell: Callable[[Page | None, str], None],
        *,
        period_s: float = PERIOD_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`tell(page, "")` after a read, `tell(None, reason)` after one that failed; on the thread."""
        self._url, self._model, self._tell = page_url(metrics_url), model, tell
        self._period_s, self._timeout_s = period_s, timeout_s
        self._reads = Reads(self._url)
        self._seen: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-page", daemon=True)
        self._thread.start()

    @property
    def reads(self) -> Reads:
        """As of now, from any thread."""
        return self._reads

    def stop(self, wait_s: float = 1.0) -> None:
        """Gives up what is under way. A name that is still being looked up may outlast `wait_s`."""
        self._stopped.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # it has ended by itself
                return
        self._thread.join(wait_s)

    # --- on the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            self._task = loop.create_task(self._keep_reading())
            if not self._stopped.is_set():
                loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()  # without waiting for a name that is being looked up

    async def _keep_reading(self) -> None:
        import aiohttp

        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            auto_decompress=False,  # a small page can unpack to any size
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept": "text/plain;version=0.0.4", "accept-encoding": "identity"},
        )
        next_s = time.monotonic()
        async with session:
            while not self._stopped.is_set():
                await self._read(session)
                now = time.monotonic()
                next_s += math.floor((now - next_s) / self._period_s + 1) * self._period_s
                await asyncio.sleep(next_s - now)

    async def _read(self, session: Any) -> None:
        import aiohttp

        page, reason = None, ""
        began_ns = time.monotonic_ns()
        try:
            raw = await self._fetch(session)
            middle_ns = (began_ns + time.monotonic_ns()) // 2
            page = Page(middle_ns, engines(raw, self._model))
        except PageError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no whole page within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
        self._count(page, reason)
        self._tell(page, reason)

    async def _fetch(self, session: Any) -> bytes:
        async with session.get(self._url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise PageError(f"HTTP status {answer.status}")
            if packed := answer.headers.get("content-encoding"):
                raise PageError(f"the page is packed ({packed[:20]}), though that was not asked for")
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > MOST_BYTES:
                    raise PageError(f"the page has more than {MOST_BYTES // 2**20} MiB")
            return bytes(body)

    def _count(self, page: Page | None, reason: str) -> None:
        before = self._reads
        if page is None:
            first = before.first_failure or reason
            self._reads = replace(before, failed=before.failed + 1, first_failure=first)
            return
        for name, figures in (
            ("waiting requests", (e.waiting for e in page.engines)),
            ("running requests", (e.running for e in page.engines)),
            ("KV cache use", (e.kv_cache for e in page.engines)),
        ):
            if name not in self._seen and any(f is not None for f in figures):
                self._seen.add(name)
        all_of_them = ("waiting requests", "running requests", "KV cache use")
        self._reads = replace(
            before,
            read=before.read + 1,
            engines=len(page.engines),
            missing=tuple(name for name in all_of_them if name not in self._seen),
        )
