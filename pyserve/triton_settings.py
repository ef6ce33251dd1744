"""Triton's trace and log settings, with what is true here.

There is no tracing: every answer says where its time went (`Server-Timing`), and `/metrics` has the
histograms.  The log's level and form are chosen at the start, and a request cannot change them.
"""

import logging
from collections.abc import Iterable, Mapping

from pyserve.errors import InvalidInput

TRACE_SETTINGS: dict[str, str | list[str]] = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
"""Triton's defaults, with tracing off."""


def check_trace(wanted: Mapping[str, object]) -> None:
    """Raise InvalidInput for settings that would switch tracing on, or that there are not."""
    _refuse_unknown("trace", wanted, TRACE_SETTINGS)
    level = wanted.get("trace_level")
    levels = level if isinstance(level, list) else [level]
    if any(one not in ("OFF", None) for one in levels):
        raise InvalidInput(
            "there is no tracing here: trace_level can only be OFF; Server-Timing in every answer "
            "and the histograms of /metrics say where time goes"
        )


def log_settings(log_format: str) -> dict[str, object]:
    """Return what the server's log has, and its form."""
    log = logging.getLogger("pyserve")
    return {
        "log_file": "",
        "log_info": log.isEnabledFor(logging.INFO),
        "log_warning": log.isEnabledFor(logging.WARNING),
        "log_error": log.isEnabledFor(logging.ERROR),
        "log_verbose_level": int(log.isEnabledFor(logging.DEBUG)),
        "log_format": log_format,
    }


def check_log(wanted: Mapping[str, object], settings: Mapping[str, object]) -> None:
    """Raise InvalidInput for what differs from `settings`, those in force."""
    _refuse_unknown("log", wanted, settings)
    for name, value in wanted.items():
        if value != settings[name]:
            raise InvalidInput(
                f"{name} cannot be changed while the server runs: start it with --log-level and "
                "--log-format"
            )


def _refuse_unknown(kind: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    for name in wanted:
        if name not in known:
            raise InvalidInput(
                f'unknown {kind} setting "{name[:40]}", expected one of {", ".join(known)}'
            )
