"""From plain resolved dicts to validated objects: the one place where `_target_` is read."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Mapping
from typing import Any

TARGET = "_target_"


def build(node: Any, key: str = "", package: str = "kerzoo") -> Any:
    """Build the object that a resolved configuration node describes.

    A mapping with `_target_` becomes an instance of that class, its other keys the arguments;
    any other mapping, list or value is returned with its members built. Targets are limited to
    dataclasses inside one package, so that a configuration file cannot run foreign code.

    Args:
        node: A plain dict, list or value (no Hydra or OmegaConf container).
        key: Where the node stands in the configuration, for error messages.
        package: Where targets may lie.

    Returns:
        The object, or the node with its members built.

    Raises:
        ValueError: A target outside the package, an unknown or missing key, or a value that the
            target's own validation refuses; the message names the key.
    """
    if isinstance(node, Mapping):
        arguments = {
            name: build(value, f"{key}.{name}" if key else str(name), package)
            for name, value in node.items()
            if name != TARGET
        }
        if TARGET not in node:
            return arguments
        return _instantiate(node[TARGET], arguments, key, package)
    if isinstance(node, list | tuple):
        return [build(member, f"{key}[{index}]", package) for index, member in enumerate(node)]
    return node


def check_arguments(cls: type[Any], arguments: Mapping[str, Any], key: str, what: str) -> None:
    """See whether a dataclass can be made from some arguments, as far as names and types say.

    Types are checked where the annotation is made of int, float, bool, str, tuples of them and
    None, or is a class of kerzoo; an int is a float, a bool is not an int.

    Args:
        cls: The dataclass.
        arguments: Its arguments by name.
        key: Where they stand in the configuration.
        what: What the error messages call the dataclass.

    Raises:
        ValueError: An unknown or missing key, or a value of the wrong type; names the key.
    """
    fields = _fields_of(cls)  # type: ignore[arg-type]
    unknown = sorted(set(arguments) - fields.keys())
    if unknown:
        allowed = ", ".join(sorted(fields)) or "none"
        raise ValueError(f"{key}.{unknown[0]}: no such key; {what} takes: {allowed}")
    missing = {name for name, field in fields.items() if field.required} - arguments.keys()
    if missing:
        raise ValueError(f"{key}.{sorted(missing)[0]}: missing; {what} needs it")
    check_types(cls, arguments, key)


def check_types(cls: type[Any], arguments: Mapping[str, Any], key: str) -> None:
    """The part of `check_arguments` about the types of some arguments, all of them known.

    Raises:
        ValueError: A value of the wrong type; names the key.
    """
    fields = _fields_of(cls)  # type: ignore[arg-type]
    for name, value in arguments.items():
        kinds, contract = fields[name].kinds, fields[name].contract
        if kinds and not any(_fits(value, kind) for kind in kinds):
            words = " or ".join(_WORDS[kind] for kind in kinds)
            raise ValueError(f"{key}.{name}: must be {words}, got {value!r}")
        if contract is not None and not isinstance(value, contract):
            raise ValueError(
                f"{key}.{name}: must be an instance of {contract.__name__}, got {value!r}"
            )


@dataclasses.dataclass(frozen=True)
class _Field:
    """What is expected of an argument: one of some plain kinds, or an instance of a class."""

    required: bool
    kinds: tuple[str, ...]
    contract: type[Any] | None


@functools.cache
def _fields_of(cls: type[Any]) -> dict[str, _Field]:
    found = {}
    for field in dataclasses.fields(cls):
        if field.init:
            kinds = tuple(kind.strip() for kind in str(field.type).split("|"))
            named = _class_named(str(field.type), cls)
            found[field.name] = _Field(
                _required(field),
                kinds if _WORDS.keys() >= set(kinds) else (),
                named if isinstance(named, type) else None,
            )
    return found


_WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "None": "null",
    "tuple[str, ...]": "a list of texts",
    "tuple[int, ...]": "a list of integers",
    "tuple[float, ...]": "a list of numbers",
}

_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "None": type(None)}


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("tuple["):
        member = kind.removeprefix("tuple[").partition(",")[0]
        return isinstance(value, list | tuple) and all(_fits(v, member) for v in value)
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    return isinstance(value, _TYPES[kind])


def _class_named(annotation: str, cls: type[Any]) -> Any:
    """What an annotation of a class or of one that it inherits from names, if it is in sight."""
    modules = (sys.modules[c.__module__] for c in cls.__mro__ if c.__module__ != "builtins")
    return next((vars(m)[annotation] for m in modules if annotation in vars(m)), None)


def _instantiate(target: str, arguments: dict[str, Any], key: str, package: str) -> Any:
    cls = resolve(target, key, package)
    check_arguments(cls, arguments, key, target)
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key}: {error}") from error


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def resolve(target: str, key: str = "", package: str = "kerzoo") -> type[Any]:
    """The class that a `_target_` names.

    Raises:
        ValueError: If it is no dataclass of the package.
    """
    module_name, _, name = str(target).rpartition(".")
    if module_name != package and not module_name.startswith(f"{package}."):
        raise ValueError(f"{key}.{TARGET}: must name a class inside {package}, got {target!r}")
    try:
        cls = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}.{TARGET}: no such class: {target!r}") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"{key}.{TARGET}: must be a dataclass of {package}, got {target!r}")
    return cls
