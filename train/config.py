"""Configs: a file's `get_config()`, overrides from the command line, and small frozen dataclasses
out of it."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key."""


def _near(name: str, names: Sequence[str]) -> str:
    if not names:
        return "what stands before it has no keys"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or sorted(names)
    return f"did you mean {', '.join(close)}?"


def _literal(text: str, like: Any) -> Any:
    if isinstance(like, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ConfigError(f"{text!r} is not a {type(like).__name__}") from None
    if isinstance(value, bool) and like is not None and not isinstance(like, bool):
        raise ConfigError(f"{text!r} is not a {type(like).__name__}")
    if isinstance(like, float) and isinstance(value, int):
        return float(value)
    if isinstance(like, ConfigDict):
        if not isinstance(value, dict):
            raise ConfigError(f"{text!r} is not a mapping such as {{'name': ...}}")
        return ConfigDict(value)
    if like is not None and not isinstance(value, type(like)):
        raise ConfigError(f"{text!r} is not a {type(like).__name__}")
    return value


def override(config: ConfigDict, argument: str) -> None:
    """Apply one `--config.a.b=c`; raises `ConfigError` naming near keys, or the type it should have
    had."""
    name, equals, text = argument.partition("=")
    if not name.startswith("--config.") or not equals:
        raise ConfigError(f"{argument!r} is not of the form --config.key=value")
    keys = name.removeprefix("--config.").split(".")
    here: Any = config
    for depth, key in enumerate(keys):
        names = list(here) if isinstance(here, ConfigDict) else []
        if key not in names:
            raise ConfigError(f"{name}: there is no key {key!r}; {_near(key, names)}")
        if depth + 1 < len(keys):
            here = here[key]
    last = keys[-1]
    try:
        here[last] = _literal(text, here[last])
    except ConfigError as problem:
        raise ConfigError(f"{name}: {problem}") from None


def fill(values: ConfigDict, cls: type) -> None:
    """Give a section the defaults of its dataclass, and of those within, where it says nothing: so
    that they can be overridden, and are seen in `config.json`."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if field.name in values:
            if dataclasses.is_dataclass(hint) and isinstance(values[field.name], ConfigDict):
                fill(values[field.name], hint)  # type: ignore[arg-type]  # hint is a class
            continue
        made = field.default_factory
        default = made() if made is not dataclasses.MISSING else field.default
        if default is dataclasses.MISSING:
            continue  # `build` says that it is missing
        nested = dataclasses.is_dataclass(default)
        plain = dataclasses.asdict(default) if nested else default  # type: ignore[arg-type]  # no class
        values[field.name] = ConfigDict(plain) if isinstance(plain, Mapping) else plain


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    sections: Mapping[str, type] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """The locked config of a file, with overrides; raises `ConfigError` for a missing file or a bad
    key. `sections` are filled up with their dataclasses' defaults first, and `defaults` are values
    of what the file does not say."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no config file {path}; the ones that ship are in configs/")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    with config.unlocked():
        for name, cls in (sections or {}).items():
            if name not in config:
                config[name] = ConfigDict()
            fill(config[name], cls)
        for name, value in (defaults or {}).items():
            if name not in config:
                config[name] = value
    config.lock()
    for argument in overrides:
        override(config, argument)
    return config


def build(cls: type[T], values: Mapping[str, Any] | ConfigDict, *, path: str = "config") -> T:
    """A frozen dataclass (nested ones too) from a sub-dict; unknown and missing keys, and
    values that the dataclass refuses, are `ConfigError`s."""
    if isinstance(values, ConfigDict):
        values = values.to_dict()
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # cls is a dataclass
    for key in values:
        if key not in fields:
            raise ConfigError(f"{path} has no key {key!r}; {_near(key, list(fields))}")
    made: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values:
            unset = dataclasses.MISSING
            if field.default is unset and field.default_factory is unset:
                raise ConfigError(f"{path}.{name} is missing")
            continue
        made[name] = _value(hints[name], values[name], f"{path}.{name}")
    try:
        return cls(**made)
    except ConfigError:
        raise
    except ValueError as problem:
        raise ConfigError(f"{path}: {problem}") from None


def _value(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, path=path)  # type: ignore[arg-type]  # hint is a class
    if isinstance(value, Mapping):
        inner = (typing.get_args(hint) or (None, None))[1]
        return {k: _value(inner, v, f"{path}.{k}") for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value
