"""What a client says when it got no answer: each with what to do about it."""

import os
import ssl

from pyserve.client.retries import NoAnswer


def reason(error: BaseException) -> str:
    """Return why a connection failed, in the system's words where it has any."""
    if isinstance(error, ssl.SSLError):  # whose number is not the system's
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def cannot_reach(url: str, reason: str) -> NoAnswer:
    """Return the error of a connection that was never made."""
    return NoAnswer(
        f"cannot reach {url}: {reason}; is `pyserve serve` running there?", again="always"
    )


def hung_up(url: str, *, begun: bool) -> NoAnswer:
    """Return the error of a connection that ended too early."""
    if begun:
        return NoAnswer(f"{url} hung up in the middle of its answer")
    return NoAnswer(f"{url} hung up before it answered", again="repeatable")


def not_trusted(url: str, reason: str) -> NoAnswer:
    """Return the error of a TLS connection that failed."""
    return NoAnswer(
        f"no secure connection to {url}: {reason[:200]}; give its certificate as `ca_file`"
    )
