"""Receives one large body in a connection's place, straight into the memory that becomes a tensor.

A protocol that is handed `bytes` costs a large body two copies more than one that hands out its own
buffer; but a buffered protocol cannot be handed heads.  So the connection takes turns with this.
"""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyserve import _C
    from pyserve.http.connection import Connection


class BodyReceiver(asyncio.BufferedProtocol):
    """Fills `body`, and then hands the transport back to the connection, which takes it."""

    def __init__(self, connection: "Connection", body: "_C.RequestBody") -> None:
        self._connection = connection
        self._body = body

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: never beyond the body's end."""
        return self._body.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Note that so many bytes have come."""
        self._body.advance(nbytes)
        if not self._body.missing:
            transport = self._connection.transport
            if transport is not None:
                replace_protocol(transport, self._connection)
                self._connection.take_body()

    def eof_received(self) -> None:
        """The client will send no more."""
        self._connection.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has left."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read what was sent."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._connection.resume_writing()


def replace_protocol(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """Have `protocol` receive what arrives from now on; a pause makes uvloop look what it wants."""
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()
