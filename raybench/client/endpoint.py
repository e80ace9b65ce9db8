"""Where requests go: one URL with its headers and key, taken apart once, before the run.

The key and the header values are secrets: they are in no repr and in no error, and `hide` takes them
out of a server's own words (some servers quote the key they refuse).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from raybench import __version__

_OURS = frozenset({"content-length", "transfer-encoding", "connection", "accept-encoding", "x-request-id"})
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Endpoint:
    """One server address and what every request to it carries."""

    host: str  # a name or an address, without brackets
    port: int
    tls: bool
    target: str  # path and query of the request line
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls, url: str, path: str, headers: Mapping[str, str] | None = None, api_key: str | None = None
    ) -> Endpoint:
        """`url` is the server's base, with or without a prefix, a trailing slash or a final `/v1`;
        `path` is the call, such as `/v1/chat/completions`. An url that already ends in the path is kept.

        Raises ValueError naming what is wrong, never a header's value or the key.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"url {_shown(url)!r}: must begin with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url: must not hold a user name or password; use api_key_env or headers")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"url {_shown(url)!r}: the port must be a number from 1 to 65535") from None
        if not parts.hostname:
            raise ValueError(f"url {_shown(url)!r}: has no host")
        tls = parts.scheme == "https"
        target = _joined(parts.path, path) + (f"?{parts.query}" if parts.query else "")
        if any(ord(c) <= 32 or ord(c) > 126 for c in target):
            raise ValueError(f"url {_shown(url)!r}: the path must be percent-encoded ASCII")
        if api_key is not None and not _printable(api_key):
            raise ValueError("api key: holds a line break or another character that a header cannot carry")
        pairs = tuple((name.lower(), value) for name, value in (headers or {}).items())
        for name, value in pairs:
            if not name or not set(name) <= _TOKEN:
                raise ValueError(f"header {name!r}: not a header name")
            if name in _OURS:
                raise ValueError(f"header {name!r}: is set by the client itself")
            if not _printable(value):
                raise ValueError(f"header {name!r}: its value holds a character that a header cannot carry")
        return cls(parts.hostname, port or (443 if tls else 80), tls, target, pairs, api_key)

    @property
    def where(self) -> str:
        """Host and port as people write them; fit for errors."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def addresses(self) -> list[str]:
        """The numeric addresses of the host, in the resolver's order. Blocks; raises OSError."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(info[4][0]) for info in found))

    def head(self) -> bytes:
        """The request head but for the two headers that differ by request. Holds the key."""
        standard = f":{self.port}" if self.port != (443 if self.tls else 80) else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        fields = {
            "host": host + standard,
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            "user-agent": f"raybench/{__version__}",
        }
        if self.api_key is not None:
            fields["authorization"] = f"Bearer {self.api_key}"
        fields.update(self.headers)
        # A compressed stream would hold events back in the server's compressor and cost CPU here.
        fields["accept-encoding"] = "identity"
        lines = [f"POST {self.target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        return ("\r\n".join(lines) + "\r\n").encode("latin-1")

    def hide(self, words: str) -> str:
        """`words` without the key and without header values long enough to be secrets."""
        for secret in (self.api_key, *(value for _, value in self.headers)):
            if secret and len(secret) >= 6:
                words = words.replace(secret, "***")
        return words


def _joined(base: str, path: str) -> str:
    base, path = base.rstrip("/"), "/" + path.lstrip("/")
    if base.endswith(path):
        return base
    if base.endswith("/v1") and path.startswith("/v1/"):
        return base + path[3:]
    return base + path


def _printable(value: str) -> bool:
    return all(c == "\t" or 32 <= ord(c) < 127 or 160 <= ord(c) < 256 for c in value)


def _shown(url: str) -> str:
    """An url fit for an error: without user information and query, which may hold secrets."""
    scheme, _, rest = url.split("?")[0].rpartition("://")
    return (f"{scheme}://" if scheme else "") + rest.rpartition("@")[2][:200]
