"""Measures latency and throughput, as a stranger would: through the public API."""
