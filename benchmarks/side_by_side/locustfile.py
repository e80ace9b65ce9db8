"""The load for locust: what a user of locust writes to ask for streamed chat completions.

`REQUESTS` ends the test. Locust has no arrival rate over all users: with `RATE`, each of a hundred users
begins a request every 100/RATE seconds, 1/RATE after the user before, which is that rate as long as an
answer takes less. (`constant_pacing` would count from the end of the first answer.)
"""

from __future__ import annotations

import os
import time
from typing import Any

import gevent
from gevent.event import Event
from locust import FastHttpUser, events, task

REQUESTS = int(os.environ["REQUESTS"])
RATE = float(os.environ.get("RATE", 0))
USERS = 100
BODY = {
    "model": "null",
    "stream": True,
    "messages": [{"role": "user", "content": "Describe it."}],
    "max_tokens": int(os.environ["TOKENS"]),
}
begun = 0
ended = 0
first_s = 0.0
all_ended = Event()


@events.init.add_listener
def stop_at_the_end(environment: Any, **_: Any) -> None:
    """Locust runs for a time; here it is over with the last request."""

    def wait() -> None:
        all_ended.wait()
        while environment.runner.state == "spawning":
            gevent.sleep(0.02)
        environment.runner.quit()

    gevent.spawn(wait)


class Chat(FastHttpUser):
    users = 0
    due_s = 0.0

    def on_start(self) -> None:
        global first_s
        if RATE:
            first_s = first_s or time.monotonic() + 0.2
            self.due_s = first_s + Chat.users / RATE
            Chat.users += 1
            gevent.sleep(max(0.0, self.due_s - time.monotonic()))

    def wait_time(self) -> float:
        if not RATE:
            return 0.0
        self.due_s += USERS / RATE
        return max(0.0, self.due_s - time.monotonic())

    @task
    def ask(self) -> None:
        global begun, ended
        if begun >= REQUESTS:
            gevent.sleep(1)  # others are still being answered
            return
        begun += 1
        first_ms, chunks = None, 0
        began = time.perf_counter()
        with self.client.post("/v1/chat/completions", json=BODY, stream=True, catch_response=True) as answer:
            # The client's own iter_lines waits for a whole KiB; readline returns an event as it comes.
            for event in iter(lambda: answer._response.readline(b"\n\n"), b""):
                if event.startswith(b"data: {"):
                    chunks += 1
                    first_ms = first_ms or 1000 * (time.perf_counter() - began)
            answer.success()
        self.environment.events.request.fire(
            request_type="TTFT", name="first chunk", response_time=first_ms, response_length=0, exception=None
        )
        ended += 1
        if ended == REQUESTS:
            all_ended.set()
