"""How a route is described: what goes in, what comes out, and which errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pyserve.http.openapi_schemas import STRING, Schema, ref

Content: TypeAlias = dict[str, Schema]
"""Schemas by media type."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a header; those of the path are the pattern's."""

    name: str
    where: Literal["query", "header"]
    text: str
    schema: Schema = field(default_factory=lambda: STRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row. `answers` are for success; `errors` beside 400 and 500, which are everybody's.

    changes: it changes what is served, so the management token guards it.
    error: the schema of its errors.
    """

    tag: str
    answers: Mapping[int, Content]
    errors: tuple[int, ...] = ()
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    body_required: bool = False
    changes: bool = False
    error: str = "Error"


def json(schema: str | Schema) -> Content:
    """Return JSON of a schema, or of the one with this name."""
    return {"application/json": ref(schema) if isinstance(schema, str) else schema}
