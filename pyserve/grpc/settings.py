"""Triton's trace and log settings over gRPC; `pyserve.triton_settings` says what is so."""

from __future__ import annotations

from typing import Any

from pyserve.grpc.calls import Context, Unary
from pyserve.protos import message
from pyserve.service import Service
from pyserve.triton_settings import TRACE_SETTINGS, check_log, check_trace, log_settings


class SettingsApi:
    """TraceSetting and LogSettings: what is, and a refusal of what would be something else."""

    def __init__(self, service: Service, *, log_format: str) -> None:
        self._service = service
        self._log_format = log_format

    @property
    def unary(self) -> dict[str, Unary]:
        """Handlers of messages."""
        return {"TraceSetting": self.trace, "LogSettings": self.log}

    async def trace(self, request: Any, context: Context) -> Any:
        """The trace settings: tracing is off, for every model."""
        if request.model_name:
            self._service.look(request.model_name)
        # A setting without a value asks for the default.
        check_trace({name: list(one.value) for name, one in request.settings.items()})
        answer = message("inference.TraceSettingResponse")()
        for name, value in TRACE_SETTINGS.items():
            answer.settings[name].value.extend(value if isinstance(value, list) else [value])
        return answer

    async def log(self, request: Any, context: Context) -> Any:
        """What the server's log has, and its form."""
        settings = log_settings(self._log_format)
        wanted = {}
        for name, one in request.settings.items():
            choice = one.WhichOneof("parameter_choice")
            if choice is not None:
                wanted[name] = getattr(one, choice)
        check_log(wanted, settings)
        answer = message("inference.LogSettingsResponse")()
        for name, value in settings.items():
            if isinstance(value, bool):
                answer.settings[name].bool_param = value
            elif isinstance(value, int):
                answer.settings[name].uint32_param = value
            else:
                answer.settings[name].string_param = value
        return answer
