"""How a build tells that it goes on: a line for people, and the fraction done from 0 to 1."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, float], None]


def ignore_progress(message: str, fraction: float) -> None:
    """Takes reports when nobody listens."""
