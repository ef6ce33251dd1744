"""gRPC for threads: one channel, which keeps its connection and makes it again when it is lost."""

from __future__ import annotations

import functools
from typing import Any

import grpc

from pyserve.client.grpc_dialect import GrpcCall, GrpcReply, read_trailers, refusal
from pyserve.client.options import Options
from pyserve.errors import PyserveError


def channel_options(options: Options) -> list[tuple[str, int]]:
    """Return grpc's channel arguments."""
    return [
        # Sizes are for the server to limit, as over HTTP.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A client's connection is its own, and what it retries is decided in `retries.py`.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Called a backoff, this is how long an attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", max(int(options.connect_timeout_s * 1000), 100)),
    ]


def call_options(options: Options) -> dict[str, Any]:
    """Return what every call is given: headers and compression."""
    metadata = tuple(options.headers.items())
    compression = {
        None: grpc.Compression.NoCompression,
        "gzip": grpc.Compression.Gzip,
        "deflate": grpc.Compression.Deflate,
    }[options.compression]
    return {"metadata": metadata, "compression": compression}


def credentials(options: Options) -> Any:
    """Return grpc's channel credentials."""
    return grpc.ssl_channel_credentials(*options.certificates())


def wait_of(timeout_s: float) -> float | None:
    """Return a timeout as grpc takes it."""
    return None if timeout_s == float("inf") else timeout_s


class GrpcSync:
    """A transport; threads share its channel."""

    def __init__(self, options: Options) -> None:
        address = options.address
        self.url = address.url
        self.call_options = call_options(options)
        arguments = channel_options(options)
        self.channel = (
            grpc.secure_channel(address.authority, credentials(options), arguments)
            if address.secure
            else grpc.insecure_channel(address.authority, arguments)
        )
        self._method = functools.lru_cache(maxsize=64)(self.channel.unary_unary)

    def send(self, call: GrpcCall, timeout_s: float) -> GrpcReply:
        """Return the answer."""
        try:
            answer, ended = self._method(call.path).with_call(
                call.message, timeout=wait_of(timeout_s), **self.call_options
            )
        except grpc.RpcError as error:
            raise failure(self.url, error, timeout_s) from None
        return GrpcReply(answer, read_trailers(ended.trailing_metadata()))

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self.channel.close()


def failure(url: str, error: Any, timeout_s: float) -> PyserveError:
    """Return what one of grpc's errors means."""
    return refusal(
        url, error.code().name, error.details() or "", error.trailing_metadata() or (), timeout_s
    )
