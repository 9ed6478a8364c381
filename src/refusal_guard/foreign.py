"""Looks into objects of SDKs that are not imported here: pydantic models, plain classes, dicts and exceptions alike.

Whatever such an object does when it is looked at, these functions answer with "nothing there" rather than raise. Types are told by
`type(thing)`: a proxy may raise when it is asked for its `__class__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


def field(thing: Any, *path: str) -> Any:
    """Return what stands under a path of names, in mappings and attributes; None where there is nothing."""
    for name in path:
        try:
            thing = thing.get(name) if type(thing) is dict or is_a(thing, Mapping) else getattr(thing, name, None)
        except Exception:  # a foreign property may raise anything, and that must not reach the user's call
            return None
    return thing


def first(thing: Any, *names: str) -> Any:
    """Return the first of several fields that is there: SDKs say finish_reason where the wire says finishReason."""
    return next((found for name in names if (found := field(thing, name)) is not None), None)


def items(thing: Any, *path: str) -> list[Any]:
    """Return the entries of a list field, or of the list itself; [] when there is none."""
    found = field(thing, *path)
    try:
        return list(found) if is_a(found, list, tuple) else []
    except Exception:  # as above
        return []


def pairs(thing: Any) -> list[tuple[str, Any]]:
    """Return the named fields of a mapping or of an object that keeps them in its `__dict__` (pydantic's extra ones too)."""
    sources = [thing] if is_a(thing, Mapping) else [field(thing, "__dict__"), field(thing, "model_extra")]
    try:
        return [(name, value) for source in sources if is_a(source, Mapping) for name, value in source.items() if is_a(name, str)]
    except Exception:  # as above
        return []


def word(value: Any) -> str | None:
    """Return a string, or the name of an enum's member as the wire has it; None for anything else and for ""."""
    if is_a(value, Enum):
        value = value.value if is_a(value.value, str) else value.name
    return str(value) if is_a(value, str) and value else None


def is_a(thing: Any, *kinds: type) -> bool:
    """Return whether a thing is an instance of one of the kinds."""
    return issubclass(type(thing), kinds)


def has(thing: Any, name: str) -> bool:
    """Return whether a thing has a field, be it None."""
    try:
        return name in thing if is_a(thing, Mapping) else hasattr(thing, name)
    except Exception:  # as above
        return False
