"""HTTP/1.1 and server-sent events: bytes in, instants out.

client = Client([Endpoint.parse(url, "/v1/chat/completions")], timeout_s=60, loop=loop, record_chunks=True)
client.send(0, body, done=lambda exchange: print(exchange.outcome, exchange.first_token_ns))
"""

from raybench.client.client import Client, Prepared
from raybench.client.endpoint import Endpoint
from raybench.client.exchange import Exchange

__all__ = ["Client", "Endpoint", "Exchange", "Prepared"]
