"""The floor of gRPC: a grpc.aio handler on uvloop that reads a request and answers, with no model.

`python -m pyserve.bench.empty_grpc FILE` answers every ModelInfer with the message in FILE: what a
server answers to the same request.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from pyserve.protos import message


async def run(answer: bytes) -> None:
    """Listen on a free loopback port until the process is ended."""
    response = message("inference.ModelInferResponse").FromString(answer)

    async def infer(request: Any, context: Any) -> Any:
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=message("inference.ModelInferRequest").FromString,
        response_serializer=lambda value: value.SerializeToString(),
    )
    service = "inference.GRPCInferenceService"
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"ModelInfer": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1]).read_bytes()))
