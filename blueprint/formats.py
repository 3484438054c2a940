"""Blueprints as JSON that people edit; what is wrong with it is named by its path."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import Any

from blueprint.schema import Blueprint, BlueprintError, Box, Element, Picture, Shape, Text

_TYPES: dict[str, type] = {"text": Text, "shape": Shape, "picture": Picture}


def to_dict(blueprint: Blueprint) -> dict[str, Any]:
    """Plain dicts and lists; each element says its `type` first."""
    whole = dataclasses.asdict(blueprint)
    names = {cls: name for name, cls in _TYPES.items()}
    whole["elements"] = [
        {"type": names[type(e)], **dataclasses.asdict(e)} for e in blueprint.elements
    ]
    return {"version": whole.pop("version"), **whole}


def to_json(blueprint: Blueprint) -> str:
    """Indented JSON, the same bytes for the same blueprint."""
    return json.dumps(to_dict(blueprint), indent=2, ensure_ascii=False) + "\n"


def _fields(value: Any, cls: type, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BlueprintError(path or "blueprint", f"{value!r} is not an object")
    prefix = f"{path}." if path else ""
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.5) or list(known)
            raise BlueprintError(f"{prefix}{key}", f"is no field; did you mean {', '.join(near)}?")
    for name, field in known.items():
        if name not in value and field.default is dataclasses.MISSING:
            raise BlueprintError(f"{prefix}{name}", "is missing")
    return dict(value)


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise BlueprintError(path, f"{value!r} is not a list")
    return value


def _element(value: Any, path: str) -> Element:
    if not isinstance(value, dict):
        raise BlueprintError(path, f"{value!r} is not an object")
    rest = dict(value)
    name = rest.pop("type", None)
    if name not in _TYPES:
        raise BlueprintError(f"{path}.type", f"{name!r} is not one of {', '.join(_TYPES)}")
    fields = _fields(rest, _TYPES[name], path)
    fields["box"] = Box(**_fields(fields["box"], Box, f"{path}.box"))
    if "lines" in fields:
        fields["lines"] = tuple(_list(fields["lines"], f"{path}.lines"))
    return _TYPES[name](**fields)


def from_dict(value: Any) -> Blueprint:
    """The inverse of `to_dict`; raises `BlueprintError` with the path of what is wrong."""
    if not isinstance(value, dict) or "version" not in value:
        raise BlueprintError("version", "is missing")
    if value["version"] != 1:
        raise BlueprintError("version", f"{value['version']!r} is not known here; 1 is")
    fields = _fields(value, Blueprint, "")
    elements = _list(fields["elements"], "elements")
    fields["elements"] = tuple(_element(e, f"elements[{i}]") for i, e in enumerate(elements))
    return Blueprint(**fields)


def from_json(text: str) -> Blueprint:
    """The inverse of `to_json`; raises `BlueprintError`, for bad JSON with line and column."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise BlueprintError("blueprint", f"is no JSON at {where}: {problem.msg}") from None
    return from_dict(value)
