"""Looking into JSON schemas."""

from __future__ import annotations

from collections.abc import Iterator


def every_node(schema: dict[str, object]) -> Iterator[dict[str, object]]:
    """A schema and all that are inside it."""
    yield schema
    children = [*dict(schema.get("properties", {})).values(), *list(schema.get("anyOf", []))]  # type: ignore[call-overload]
    children += [schema["items"]] if "items" in schema else []
    for child in children:
        yield from every_node(child)
