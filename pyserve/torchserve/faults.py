"""Refusals that only TorchServe's API knows, and its words for the ones that everybody knows."""

from __future__ import annotations

from pyserve.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    PyserveError,
    QueueFull,
    Unauthenticated,
    Unavailable,
)


class VersionNotFound(ModelNotFound):
    """The model is there, this version of it is not."""


class AlreadyRegistered(PyserveError):
    """A model of this name and version is registered already."""

    http_status = 409
    grpc_code = "ALREADY_EXISTS"


class DefaultVersion(PermissionDenied):
    """The default version cannot go while there are others."""


class DownloadFailed(InvalidInput):
    """An archive could not be had from its URL."""


class BadArchive(InvalidInput):
    """An archive that cannot be served, and why."""


class NoExplanations(PyserveError):
    """Explanations are asked for, which no model here gives."""

    http_status = 501
    grpc_code = "UNIMPLEMENTED"


_TYPES: tuple[tuple[type[PyserveError], str], ...] = (
    (VersionNotFound, "ModelVersionNotFoundException"),
    (ModelNotFound, "ModelNotFoundException"),
    (AlreadyRegistered, "ConflictStatusException"),
    (DefaultVersion, "InvalidModelVersionException"),
    (NoExplanations, "NotImplementedException"),
    (DownloadFailed, "DownloadArchiveException"),
    (BadArchive, "InvalidModelException"),
    (Unauthenticated, "InvalidKeyException"),
    (PermissionDenied, "PermissionDeniedException"),
    (PayloadTooLarge, "RequestEntityTooLargeException"),
    (InvalidInput, "BadRequestException"),
    (ConfigError, "BadRequestException"),
    (QueueFull, "TooManyRequestsException"),
    (Unavailable, "ServiceUnavailableException"),
    (DeadlineExceeded, "RequestTimeoutException"),
)


def type_of(error: PyserveError) -> str:
    """Return what TorchServe's JSON calls an error like this one."""
    return next((name for kind, name in _TYPES if isinstance(error, kind)), _INTERNAL)


_INTERNAL = "InternalServerException"
