"""Everything that pyserve raises on purpose, and the one table of what each means to a client.

A class stands for one row: the exception a Python caller sees, the HTTP status and the gRPC code.
The core names outcomes by the words of `csrc/base/status.h`; `from_code` maps them to classes.
A client reads the table the other way: `from_http_status`, `from_grpc_code`. How a status becomes a
response is for `pyserve.http` and `pyserve.grpc` to say.
"""

from __future__ import annotations

from typing import ClassVar

MESSAGE_LIMIT_BYTES = 1024

INTERNAL = "an error inside the server; its log says more"
"""What a client is told of a fault that nobody foresaw."""


def cut(message: str) -> str:
    """Return `message` in at most 1 KiB of valid UTF-8.

    Messages travel in gRPC headers, which hold 8 KiB, and may quote what a client sent: neither
    the length nor the validity of that is ours to trust.
    """
    if message.isascii() and len(message) <= MESSAGE_LIMIT_BYTES:
        return message
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= MESSAGE_LIMIT_BYTES:
        return encoded.decode("utf-8")
    ellipsis = "…"
    kept = encoded[: MESSAGE_LIMIT_BYTES - len(ellipsis.encode("utf-8"))]
    return kept.decode("utf-8", "ignore") + ellipsis


class PyserveError(Exception):
    """The base of all that pyserve raises on purpose; by itself, a fault inside pyserve."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(message))

    @property
    def message(self) -> str:
        """What went wrong: what was expected, what was got."""
        return str(self)


class InvalidInput(PyserveError):
    """A malformed body, an unknown name, a wrong dtype, shape or size."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class LoadFailed(InvalidInput):
    """A model file that cannot be loaded."""


class ConfigError(PyserveError):
    """A configuration or a command line that makes no sense; the command line exits with 2."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class Unauthenticated(PyserveError):
    """The caller did not say who they are."""

    http_status = 401
    grpc_code = "UNAUTHENTICATED"


class PermissionDenied(PyserveError):
    """The caller may not do this."""

    http_status = 403
    grpc_code = "PERMISSION_DENIED"


class ModelNotFound(PyserveError):
    """No such model, or no such version of it."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class PayloadTooLarge(PyserveError):
    """A body over the limit, counted after decompression."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class QueueFull(PyserveError):
    """Admission refused: the model's queue is full. Worth another try in `retry_after_s`."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Cancelled(PyserveError):
    """The client went away before the request started to run."""

    http_status = 499
    grpc_code = "CANCELLED"


class ModelFailed(PyserveError):
    """The model raised, or answered with something other than its signature says."""

    http_status = 500
    grpc_code = "INTERNAL"


class Unavailable(PyserveError):
    """Loading, draining, or no instance to run on; to a client also: nobody answers.

    retry_after_s: when to try again, where the one who refused has said so.
    """

    http_status = 503
    grpc_code = "UNAVAILABLE"

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(PyserveError):
    """The deadline passed; the request was not run after it."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"


BY_CODE: dict[str, type[PyserveError]] = {
    "invalid_input": InvalidInput,
    "queue_full": QueueFull,
    "cancelled": Cancelled,
    "model_failed": ModelFailed,
    "unavailable": Unavailable,
    "deadline_exceeded": DeadlineExceeded,
}
"""The core's words (`code_name` in `csrc/base/status.h`) and the exceptions they become."""


def from_code(name: str, message: str) -> PyserveError:
    """Return the exception for the core's code `name`; a word unknown here is a fault, 500."""
    return BY_CODE.get(name, PyserveError)(message)


_ANSWERED: tuple[type[PyserveError], ...] = (
    InvalidInput,
    Unauthenticated,
    PermissionDenied,
    ModelNotFound,
    PayloadTooLarge,
    QueueFull,
    Cancelled,
    ModelFailed,
    Unavailable,
    DeadlineExceeded,
)

# 502 is what a proxy says before a server that is down.
_BY_STATUS = {one.http_status: one for one in _ANSWERED} | {502: Unavailable}

_BY_GRPC_CODE = {one.grpc_code: one for one in _ANSWERED} | {"UNIMPLEMENTED": InvalidInput}


def from_http_status(
    status: int, message: str, *, retry_after_s: float | None = None
) -> PyserveError:
    """Return the exception for an answer of `status`, as a client raises it.

    Statuses that are in no row are the caller's fault from 400 to 499, else the server's.
    """
    error = _BY_STATUS.get(status, InvalidInput if 400 <= status < 500 else PyserveError)
    return _refusal(error, message, retry_after_s)


def from_grpc_code(code: str, message: str, *, retry_after_s: float | None = None) -> PyserveError:
    """Return the exception for a call that ended with `code`, as a client raises it.

    RESOURCE_EXHAUSTED stands in two rows; only a full queue says when to come again.
    """
    error = _BY_GRPC_CODE.get(code, PyserveError)
    if code == QueueFull.grpc_code:
        error = PayloadTooLarge if retry_after_s is None else QueueFull
    return _refusal(error, message, retry_after_s)


def _refusal(error: type[PyserveError], message: str, retry_after_s: float | None) -> PyserveError:
    if retry_after_s is not None and issubclass(error, QueueFull | Unavailable):
        return error(message, retry_after_s=retry_after_s)
    return error(message)
