"""One line of the table of figures: what was measured, what was to be reached."""

import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A figure: the median of `values`, one per repeat.

    at_most: the figure is to be at most `limit`; else at least.
    details: what the figure was made from and what else the same run tells, medians.
    error: why there is no figure.
    """

    key: str
    what: str
    limit: float
    at_most: bool
    unit: str = ""
    values: tuple[float, ...] = ()
    tool: str = ""
    details: dict[str, float] = {}
    error: str = ""

    @property
    def value(self) -> float | None:
        """The figure."""
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool:
        """Whether what was to be reached was."""
        value = self.value
        if value is None:
            return False
        return value <= self.limit if self.at_most else value >= self.limit

    def with_values(
        self,
        values: Sequence[float],
        *,
        tool: str,
        details: Mapping[str, float] = MappingProxyType({}),
    ) -> "Finding":
        """Return this line with its figure filled in."""
        return msgspec.structs.replace(self, values=tuple(values), tool=tool, details=dict(details))

    def as_json(self) -> dict[str, object]:
        """Return figure and verdict beside the fields."""
        return {**msgspec.to_builtins(self), "value": self.value, "met": self.met}


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of every repeat: neighbours in time are compared, not medians."""
    return [a / b for a, b in zip(over, under, strict=True)]
