"""`config.properties`: what TorchServe's keys mean here.

Every key is either understood or reported: the report is for the log, so that nobody believes a
setting to be in force that is not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pyserve.errors import ConfigError
from pyserve.torchserve.java_properties import parse
from pyserve.torchserve.manifest import SETTINGS, ModelSettings, settings_of
from pyserve.typed import nearest, show

_MAX_FILE_BYTES = 1 << 20
# A prefix of URLs, as a regular expression that stands for no more than itself.
_PREFIX = re.compile(r"(https?://[A-Za-z0-9.:/_~%-]*)(\.\*)?")

# Keys that are about TorchServe's own processes, and have nothing to set here.
NO_COUNTERPART = {
    "number_of_netty_threads": "there are no Netty threads",
    "netty_client_threads": "there are no Netty threads",
    "vmargs": "there is no Java",
    "prefer_direct_buffer": "there is no Java",
    "number_of_gpu": "use --device, and instances.count",
    "async_logging": "logging never waits",
    "initial_worker_port": "instances are threads and need no ports",
    "max_response_size": "answers are not limited",
    "install_py_dep_per_model": "nothing is installed: install what handlers need beforehand",
    "blacklist_env_vars": "there are no worker processes",
    "enable_envvars_config": "environment variables are not read",
    "decode_input_request": "bodies are decoded by what the model takes",
    "unregister_model_timeout": "use --drain-timeout",
    "metrics_config": "metrics are what docs/http.md lists",
    "metrics_mode": "metrics are always Prometheus's",
    "metrics_format": "metrics are always Prometheus's",
    "enable_metrics_api": "metrics are always on",
    "disable_system_metrics": "metrics are what docs/http.md lists",
    "model_server_home": "it is not needed",
    "workflow_store": "workflows have no counterpart",
    "model_snapshot": "snapshots have no counterpart: use load_models and models",
    "tsVersion": "it says which TorchServe wrote the file",
    "version": "it says which TorchServe wrote the file",
    "cors_allowed_methods": "all methods of the routes are allowed",
    "cors_allowed_headers": "the headers that clients need are allowed",
    "enable_model_api": "use --model-control",
    "disable_token_authorization": "use --management-token",
    "keystore": "TLS is not in this version: put a proxy before it",
    "keystore_pass": "TLS is not in this version: put a proxy before it",
    "keystore_type": "TLS is not in this version: put a proxy before it",
    "certificate_file": "TLS is not in this version: put a proxy before it",
    "private_key_file": "TLS is not in this version: put a proxy before it",
    "use_env_allowed_urls": "environment variables are not read",
    "use_native_io": "there is no Netty",
    "io_ratio": "there is no Netty",
    "grpc_inference_max_connection_age_ms": "see docs/grpc.md for the limits in force",
    "grpc_management_max_connection_age_ms": "see docs/grpc.md for the limits in force",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What a `config.properties` says.

    addresses: host and port by "inference", "management" and "metrics".  grpc_ports: by the first
    two of these.  load: archive by the name of its model, empty for the name in its manifest; None
    for all that the store has.  models: settings by model name and version.  defaults: the default
    version by model name.  options: keys of the server's configuration.  report: one line for each
    key that is not in force.
    """

    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    grpc_ports: dict[str, int] = field(default_factory=dict)
    load: tuple[tuple[str, str], ...] | None = None
    models: dict[tuple[str, str], ModelSettings] = field(default_factory=dict)
    common: ModelSettings = field(default_factory=ModelSettings)
    defaults: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    report: tuple[str, ...] = ()


def read_properties(path: Path) -> Properties:
    """Read the file; ConfigError where it cannot be read or a key makes no sense."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: more than {_MAX_FILE_BYTES} bytes")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected text in UTF-8") from None
    return understand(parse(text), source=path.name, folder=path.parent)


def understand(pairs: dict[str, str], *, source: str, folder: Path) -> Properties:
    """Say what the pairs mean; relative paths are relative to `folder`."""
    return _Reader(source, folder).read(pairs)


class _Reader:
    """Collects what the keys of one file say."""

    def __init__(self, source: str, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._addresses: dict[str, tuple[str, int]] = {}
        self._grpc_ports: dict[str, int] = {}
        self._load: tuple[tuple[str, str], ...] | None = None
        self._models: dict[tuple[str, str], ModelSettings] = {}
        self._common: dict[str, int] = {}
        self._defaults: dict[str, str] = {}
        self._options: dict[str, object] = {}
        self._report: list[str] = []

    def read(self, pairs: dict[str, str]) -> Properties:
        for key, value in pairs.items():
            self._one(key, value.strip())
        return Properties(
            addresses=self._addresses,
            grpc_ports=self._grpc_ports,
            load=self._load,
            models=self._models,
            common=ModelSettings(**self._common),
            defaults=self._defaults,
            options=self._options,
            report=tuple(self._report),
        )

    def _one(self, key: str, value: str) -> None:
        match key:
            case "inference_address" | "management_address" | "metrics_address":
                self._addresses[key.removesuffix("_address")] = self._address(key, value)
            case "grpc_inference_port" | "grpc_management_port":
                name = key.removeprefix("grpc_").removesuffix("_port")
                self._grpc_ports[name] = self._number(key, value, 65535)
            case "grpc_inference_address" | "grpc_management_address":
                self._note(key, "gRPC listens at the address of --host")
            case "model_store":
                self._options["model_store"] = str(self._folder / value)
            case "load_models":
                self._load = _models_to_load(value)
            case "models":
                self._read_models(value)
            case "default_workers_per_model":
                self._common["min_workers"] = self._number(key, value, 1024)
            case "job_queue_size":
                self._common["job_queue_size"] = self._number(key, value, 1 << 20)
            case "default_response_timeout":
                self._common["response_timeout"] = self._number(key, value, 86_400)
            case "batch_size":
                self._common["batch_size"] = self._number(key, value, 1 << 20)
            case "max_batch_delay":
                self._common["max_batch_delay"] = self._number(key, value, 60_000)
            case "max_request_size":
                self._options["max_body_bytes"] = max(1, self._number(key, value, 1 << 40))
            case "cors_allowed_origin":
                self._options["cors_origin"] = [one.strip() for one in value.split(",") if one]
            case "allowed_urls":
                self._read_urls(value)
            case _:
                self._unknown(key)

    def _unknown(self, key: str) -> None:
        reason = NO_COUNTERPART.get(key)
        if reason is None:
            hint = nearest(key, NO_COUNTERPART)
            self._report.append(f"{self._source}: {show(key)} is not understood{hint}")
        else:
            self._note(key, reason)

    def _note(self, key: str, reason: str) -> None:
        self._report.append(f"{self._source}: {key} is ignored: {reason}")

    def _number(self, key: str, value: str, most: int) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 16 and int(value) <= most):
            raise ConfigError(
                f"{self._source}: {key}: expected a number of at most {most}, got {show(value)}"
            )
        return int(value)

    def _address(self, key: str, value: str) -> tuple[str, int]:
        try:
            url = urlsplit(value)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        if url.scheme == "https":
            raise ConfigError(
                f"{self._source}: {key} is {show(value)}: TLS is not in this version, put a proxy "
                "before it and let this address be http"
            )
        if url.scheme != "http" or not url.hostname or url.path.strip("/"):
            raise ConfigError(
                f"{self._source}: {key}: expected such as http://127.0.0.1:8080, got {show(value)}"
            )
        return url.hostname, 80 if port is None else port

    def _read_urls(self, value: str) -> None:
        """Take what can be said as prefixes; a regular expression cannot be told to be safe."""
        prefixes = []
        for one in value.split(","):
            pattern = one.strip()
            match = _PREFIX.fullmatch(pattern.replace("\\.", "."))
            if match and urlsplit(match[1]).hostname and match[1].count("/") >= 3:
                prefixes.append(match[1])
            elif pattern and not pattern.startswith("file://"):
                self._note("allowed_urls", f"{show(pattern)} is no prefix: use --allowed-url")
        self._options["allowed_urls"] = prefixes

    def _read_models(self, value: str) -> None:
        try:
            plain = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self._source}: models is no JSON: {error}") from None
        if not isinstance(plain, dict):
            raise ConfigError(f"{self._source}: models: expected an object by model names")
        for name, versions in plain.items():
            if not isinstance(versions, dict):
                raise ConfigError(f"{self._source}: models.{name}: expected an object by versions")
            for version, settings in versions.items():
                if not isinstance(settings, dict):
                    raise ConfigError(f"{self._source}: models.{name}.{version}: expected settings")
                self._read_settings(name, version, settings)

    def _read_settings(self, name: str, version: str, settings: dict[str, object]) -> None:
        if settings.get("defaultVersion") is True:
            self._defaults[name] = version
        known = {key: value for key, value in settings.items() if key in SETTINGS}
        for key in sorted(set(settings) - set(known) - {"defaultVersion", "marName"}):
            self._report.append(f"{self._source}: models.{name}: {show(key)} is not understood")
        found, notes = settings_of(known, source=f"{self._source}: models.{name}")
        self._models[name, version] = found
        self._report += notes


def _models_to_load(value: str) -> tuple[tuple[str, str], ...] | None:
    """Return which archives to load and as what; None for all."""
    if value == "all":
        return None
    if value in ("", "none", "standalone", "N/A"):
        return ()
    pairs = []
    for one in value.split(","):
        name, equals, archive = one.strip().partition("=")
        pairs.append((name.strip(), archive.strip()) if equals else ("", name.strip()))
    return tuple(pair for pair in pairs if pair[1])
