"""What one client may take of the gRPC server; docs/grpc.md lists them."""

from __future__ import annotations

from typing import TypeAlias

Options: TypeAlias = list[tuple[str, int]]

MAX_STREAMS = 1024
"""Calls in flight on one connection; more of them wait at the client."""

METADATA_BYTES = 16 * 1024
"""Metadata of one call; what is larger is refused before anything else is read."""

MIN_PING_INTERVAL_S = 10
"""Keep-alive pings of a client without calls may come so often."""

MAX_PING_STRIKES = 2
"""Pings that came too early; one more ends the connection."""

KEEPALIVE_S = 60
"""The server pings a client that has been silent for so long, and"""

KEEPALIVE_TIMEOUT_S = 20
"""takes it for dead if that is not answered in this time."""


def options(max_message_bytes: int) -> Options:
    """Return them as grpc's channel arguments; the limit on messages is the caller's.

    It counts after decompression.  Answers have no limit of their own: their size is the model's.
    A connection may grow as old as it likes.
    """
    return [
        ("grpc.max_receive_message_length", min(max_message_bytes, 2**31 - 1)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
        ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A second server on the same port is a mistake, not a way to share the load.
        ("grpc.so_reuseport", 0),
    ]
