"""The gRPC front end: one file per service, on `grpc.aio` in the server's own event loop."""

import os

# What grpc's core writes to standard error is in no form that a log has, and a client can make it
# write; what matters of it comes as an exception too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
