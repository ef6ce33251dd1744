"""Bytes of the protocols to `pyserve.messages` and back: pure functions, no torch, no sockets."""
