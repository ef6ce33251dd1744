"""Logging for the server process: text for people, or one JSON object per line.

Only the `pyserve` logger is set up, and only by the server and the command line: a program
that uses the engine in-process keeps its own logging.  Nothing here is on the path of a
request but the request log, which is off unless asked for and costs one check while it is.
"""

import logging
import sys
import time
from typing import Final, Literal, TextIO

import msgspec

REQUEST_LOGGER: Final = "pyserve.requests"
# What every record has: anything else came in by `extra=` and belongs in the JSON line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encoder = msgspec.json.Encoder(enc_hook=repr)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and its extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in line:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _encoder.encode(line).decode()
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            # A lone surrogate, or an extra field that has no JSON form: the line matters more.
            return _encoder.encode({key: ascii(value) for key, value in line.items()}).decode()


class TextFormatter(logging.Formatter):
    """`12:34:56.789 info message`, for a terminal; the time is local."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(level)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it where there is one."""
        record.level = record.levelname.lower()
        return super().format(record)


def set_up(
    log_format: Literal["text", "json"] = "text",
    level: Literal["debug", "info", "warning", "error"] = "info",
    *,
    requests: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Send pyserve's log to `stream` (standard error), replacing what an earlier call set up.

    requests: whether the request log is written as well.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger("pyserve")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    logging.getLogger(REQUEST_LOGGER).setLevel(logging.INFO if requests else logging.CRITICAL)


def request_log() -> logging.Logger | None:
    """Return the logger for requests, or None where it is off; ask once, at start."""
    logger = logging.getLogger(REQUEST_LOGGER)
    return logger if logger.isEnabledFor(logging.INFO) else None


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
