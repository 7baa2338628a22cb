"""A bound for connections, of which uvicorn has none."""

import math
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedConnection(H11Protocol):
    """uvicorn's connection, where a client can hold neither one for ever nor all of them.

    A connection waits for a request from when it opens, or its last answer is written, until the
    head of the next has come. It is closed when it has waited for `timeout_keep_alive`, or has
    waited longest when one is opened beyond `max_connections`: the new one, if no other waits.
    """

    max_connections: int

    def connection_made(self, transport: Any) -> None:
        """Begins to wait; makes room if there is none."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if len(self.connections) > self.max_connections:
            bounded = [each for each in self.connections if isinstance(each, BoundedConnection)]
            longest = min(bounded, key=BoundedConnection._waits_until)
            self.connections.discard(longest)
            longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Takes it in; unlike uvicorn's, goes on waiting until a whole head has come."""
        self.conn.receive_data(data)
        self.handle_events()

    def _waits_until(self) -> float:
        waiting = self.timeout_keep_alive_task
        return waiting.when() if waiting else math.inf
