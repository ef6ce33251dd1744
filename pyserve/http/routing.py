"""Paths to handlers: which route a request means, found once per path and remembered.

A pattern is a path with `{name}` segments, such as `/v2/models/{model}/infer`.  A segment matches
what stands between two slashes, percent-decoded, so that `%2F` in a name never opens a new
segment.  What a handler does is for the files of the APIs to say.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from aiohttp.web import BaseRequest

from pyserve.errors import PyserveError
from pyserve.http.answers import Answer

REMEMBERED_PATHS = 4096

Params: TypeAlias = Mapping[str, str]
Handler: TypeAlias = Callable[[BaseRequest, Params], Awaitable[Answer]]
# Words an error in the way of one API; None is everybody's way.
Refusal: TypeAlias = Callable[[PyserveError], Answer]


class Route:
    """One method and pattern, its handler, and how many answers of each status it gave."""

    __slots__ = ("handler", "method", "pattern", "refusal", "responses")

    def __init__(
        self, method: str, pattern: str, handler: Handler, refusal: Refusal | None = None
    ) -> None:
        self.method = method
        self.pattern = pattern
        self.handler = handler
        self.refusal = refusal
        self.responses: Counter[int] = Counter()


class Match(NamedTuple):
    """A route, and what the segments in braces were."""

    route: Route
    params: Params


class NoRoute(Exception):
    """No pattern matches, or (where `allowed` has methods) none with this method.

    refusal: how the routes of this path word their errors.
    """

    def __init__(self, allowed: tuple[str, ...], refusal: Refusal | None = None) -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.refusal = refusal


class Router:
    """All routes of a server; complete before the first request, then only read."""

    def __init__(self) -> None:
        self._root = _Node()
        self._routes: list[Route] = []
        self.resolve = lru_cache(maxsize=REMEMBERED_PATHS)(self._resolve)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route, in the order they were added."""
        return tuple(self._routes)

    def add(
        self, method: str, pattern: str, handler: Handler, *, refusal: Refusal | None = None
    ) -> None:
        """Answer `method` (GET answers HEAD too) on paths like `pattern` with `handler`."""
        node = self._root
        names = []
        for segment in pattern.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                segment = _ANY
            node = node.children.setdefault(segment, _Node())
        if method in node.routes:
            raise ValueError(f"two handlers for {method} {pattern}")
        route = Route(method, pattern, handler, refusal)
        node.routes[method] = route
        node.names[method] = tuple(names)
        self._routes.append(route)

    def _resolve(self, method: str, path: str) -> Match:
        """Return the route for a request; `path` is as sent, without the query."""
        found = self._find(path.split("/")[1:])
        if found is None:
            raise NoRoute(())
        node, values = found
        chosen = "GET" if method == "HEAD" else method
        route = node.routes.get(chosen)
        if route is None:
            allowed = {*node.routes, *(["HEAD"] if "GET" in node.routes else [])}
            refusal = next(iter(node.routes.values())).refusal
            raise NoRoute(tuple(sorted(allowed)), refusal)
        return Match(route, dict(zip(node.names[chosen], values, strict=True)))

    def _find(self, segments: list[str]) -> "tuple[_Node, list[str]] | None":
        node = self._root
        values = []
        for segment in segments:
            fixed = node.children.get(segment)
            if fixed is None or segment == _ANY:
                fixed = node.children.get(_ANY)
                if fixed is None or not segment:
                    return None
                values.append(unquote(segment))
            node = fixed
        return (node, values) if node.routes else None


_ANY = "{}"


class _Node:
    """One segment of the tree of patterns."""

    __slots__ = ("children", "names", "routes")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.routes: dict[str, Route] = {}
        self.names: dict[str, tuple[str, ...]] = {}
