"""What is registered: the versions of one model, and the `config.yaml` that they make together."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from pyserve.torchserve.convert import Converted
from pyserve.torchserve.faults import AlreadyRegistered, VersionNotFound
from pyserve.torchserve.handlers import check_mapping
from pyserve.torchserve.manifest import ModelSettings, version_number
from pyserve.typed import show


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One version. `text` is what the archive calls it, `number` what pyserve does.

    workers: 0 for registered and not loaded; None leaves their number to pyserve.
    """

    number: int
    text: str
    url: str
    converted: Converted
    settings: ModelSettings
    workers: int | None
    at_startup: bool


@dataclass(slots=True)
class StoredModel:
    """The versions of one name, in the order in which they came.

    default: the version that came first, unless another was chosen.  count: the instances of each
    version, as last asked for; None leaves it to pyserve.
    """

    name: str
    versions: dict[int, Registration] = field(default_factory=dict)
    default: int = 0
    count: int | None = None

    def number_for(self, text: str) -> int:
        """Return the number for a new version that is called `text`; 2 for "2.0", if that is free.

        Raises AlreadyRegistered.
        """
        if any(one.text == text for one in self.versions.values()):
            raise AlreadyRegistered(
                f"Model version {text} is already registered for model {self.name}"
            )
        number = version_number(text)
        if number is None or number in self.versions:
            if text.isdigit():
                raise AlreadyRegistered(
                    f"version {text} of model {self.name} is registered as "
                    f"{self.versions[int(text)].text}"
                    if int(text) in self.versions
                    else f"version {show(text)} cannot be a version, expected a positive number"
                )
            number = max(self.versions, default=0) + 1
        return number

    def add(self, registration: Registration) -> None:
        """Take a version in; ConfigError if it cannot be served beside the others."""
        for other in self.versions.values():
            check_mapping(self.name, other.converted.mapping, registration.converted.mapping)
        self.versions[registration.number] = registration
        self.default = self.default or registration.number
        if registration.workers:
            self.count = registration.workers

    def remove(self, number: int) -> None:
        """Take a version out."""
        del self.versions[number]
        if self.default == number:
            self.default = max(self.versions, default=0)

    def scale(self, number: int, workers: int) -> None:
        """Note how many instances a version is to have."""
        one = self.versions[number]
        self.versions[number] = msgspec.structs.replace(one, workers=workers)
        if workers:
            self.count = workers

    def find(self, version: str | None) -> Registration:
        """Return a version by what a client calls it: its text or its number; None is the default.

        Raises VersionNotFound.
        """
        if version is None:
            return self.versions[self.default]
        for one in self.versions.values():
            if one.text == version:
                return one
        number = version_number(version)
        if number is None or number not in self.versions:
            raise VersionNotFound(
                f"Model version: {show(version)} does not exist for model: {self.name}"
            )
        return self.versions[number]

    def wanted(self) -> tuple[int, ...]:
        """Return the versions that are to be loaded, lowest first."""
        return tuple(sorted(n for n, one in self.versions.items() if one.workers != 0))

    def config(self) -> dict[str, object]:
        """Return the model's `config.yaml`; what the newest version says about serving counts."""
        newest = next(reversed(self.versions.values()))
        config = dict(newest.converted.mapping.config)
        wanted = self.wanted() or tuple(sorted(self.versions))
        config["versions"] = {"policy": "specific", "specific": list(wanted)}
        labels = {
            one.text: number
            for number, one in sorted(self.versions.items())
            if not one.text.isdigit()
        }
        if labels:
            config["labels"] = labels
        if self.count is not None:
            config["instances"] = {"count": self.count}
        settings = newest.settings
        batching: dict[str, object] = {}
        if settings.batch_size and newest.converted.knows_inputs:
            batching["max_batch_size"] = settings.batch_size
        if settings.max_batch_delay is not None:
            batching["max_queue_delay_us"] = settings.max_batch_delay * 1000
        if batching:
            config["batching"] = batching
        queue: dict[str, object] = {}
        if settings.job_queue_size:
            queue["capacity"] = settings.job_queue_size
        if settings.response_timeout:
            queue["timeout_ms"] = settings.response_timeout * 1000
        if queue:
            config["queue"] = queue
        return config
