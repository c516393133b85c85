"""Hydra in, plain dicts out: the only module that composes configurations."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import hydra.core.hydra_config
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from kerzoo.build import TARGET, build, resolve
from sweeps import schema
from sweeps.explain import explain, explain_spelling, explain_unknown_key

CONF = Path(__file__).resolve().parent.parent / "conf"
LARGE_MODEL_PARAMETERS = 1_000_000_000
"""Models from this size on are planned for a GPU by training.device=auto."""

_OPEN = "cluster.resources"  # whose keys are Ray's
_WORDS = ("null", "true", "false", "nan", "inf")  # text that is not text without quotes


class ConfigError(ValueError):
    """The configuration is wrong; nothing was started."""


@dataclasses.dataclass(frozen=True)
class Composed:
    """A composed configuration.

    Attributes:
        config: Everything, resolved, as plain dicts.
        choices: The option chosen of each group.
        overrides: What it was composed from.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: tuple[str, ...]

    @property
    def sweep(self) -> schema.SweepConfig:
        """The sweep's own values, validated.

        Raises:
            ConfigError: For a value outside its range.
        """
        try:
            sections = {
                "search": schema.SearchOptions,
                "cluster": schema.ClusterOptions,
                "tracking": schema.TrackingOptions,
                "failures": schema.FailureOptions,
                "budget": schema.BudgetOptions,
                "confirm": schema.ConfirmOptions,
                "notify": schema.NotifyOptions,
                "report": schema.ReportOptions,
                "margins": schema.MarginOptions,
                "arm": schema.ArmLabel,
            }
            values = {
                key: sections[key](**value) if key in sections else value
                for key, value in self.config.items()
            }
            values["scheduler"] = build(values["scheduler"], "scheduler", "sweeps.schedulers")
            return schema.SweepConfig(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from error

    def trial_config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The part that decides a trial, with some dotted keys set to other values."""
        config: dict[str, Any] = {group: _copy(self.config[group]) for group in schema.TRIAL_GROUPS}
        for key, value in values.items():
            _set(config, key, value)
        _find_public_folder(config["task"], self.config.get("data_root"))
        training = config["training"]
        if training.get("device") == "auto":
            training["device"] = automatic_device(int(config["model"]["num_parameters"]))
        return config


class CellComposer:
    """Composes the choices of cells from parts, each of which Hydra composes once.

    Options of a group whose files write outside their group (arms, which choose kernel, bandwidth
    and more) are composed together; every other option is composed beside each of those and its
    node taken. So the number of compositions grows with the number of options, not with their
    product, and the result is that of composing everything at once.

    Args:
        base: The sweep's configuration.
    """

    def __init__(self, base: Composed) -> None:
        self._base = base
        self._merged: dict[tuple[tuple[str, str], ...], Composed] = {}

    def compose(self, groups: Mapping[str, str]) -> Composed:
        """The configuration with these options, whose nodes others may share.

        Raises:
            ConfigError: As for a whole composition.
        """
        key = tuple(groups.items())
        if key not in self._merged:
            self._merged[key] = self._merge(dict(groups))
        return self._merged[key]

    def choose(self, groups: Mapping[str, str]) -> dict[str, str]:
        """The option chosen of each group that decides a trial."""
        chosen = self.compose(groups).choices
        return {group: chosen[group] for group in schema.TRIAL_GROUPS}

    def _merge(self, groups: dict[str, str]) -> Composed:
        kept = [o for o in self._base.overrides if _group_of(o) not in groups and not _of_space(o)]
        together = [f"{g}={o}" for g, o in groups.items() if g in _reaching_groups()]
        apart = {g: o for g, o in groups.items() if g not in _reaching_groups()}
        whole = [*kept, *(f"{group}={option}" for group, option in groups.items())]
        if len(apart) < 2:
            return compose(whole)
        try:
            merged = compose([*kept, *together])
            parts = {g: compose([*kept, *together, f"{g}={o}"]) for g, o in apart.items()}
        except ConfigError:  # an option alone may lack what an override needs of another
            return compose(whole)
        config = {**merged.config, **{g: part.config[g] for g, part in parts.items()}}
        choices = {**merged.choices, **{g: part.choices[g] for g, part in parts.items()}}
        return Composed(config, choices, tuple(whole))


def _group_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _of_space(override: str) -> bool:
    return _group_of(override).partition(".")[0] == "space"


@functools.cache
def _reaching_groups() -> frozenset[str]:
    """The groups with an option that writes outside its group."""
    return frozenset(
        path.parent.name
        for path in CONF.glob("*/*.yaml")
        if path.read_text().startswith("# @package _global_")
    )


def compose(overrides: Sequence[str]) -> Composed:
    """Compose the configuration that a command line asks for.

    Raises:
        ConfigError: Naming the key and the allowed values.
    """
    return _compose(tuple(overrides))


@functools.lru_cache(maxsize=4096)
def _compose(overrides: tuple[str, ...]) -> Composed:
    schema.register()
    for override in overrides:
        if wrong := explain_spelling(override, list_sweeps()):
            raise ConfigError(wrong)
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            config = _hydra_compose([o for o in overrides if not _of_space(o)])
            choices = {
                str(group): str(option)
                for group, option in config.hydra.runtime.choices.items()
                if not str(group).startswith("hydra")
            }
            with open_dict(config):
                del config["hydra"]
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(plain, dict)
    plain["space"] = _change_space(plain["space"], [o for o in overrides if _of_space(o)])
    known = [field.name for field in dataclasses.fields(schema.SweepConfig)]
    if unknown := sorted(set(map(str, plain)) - set(known)):
        raise ConfigError(explain_unknown_key(unknown[0], sorted(known)))
    return Composed({str(k): v for k, v in plain.items()}, choices, overrides)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Key → value of a command line's overrides; values as Hydra reads them.

    Raises:
        ConfigError: If one of them is no override.
    """
    try:
        return {o.key_or_group: o.value() for o in _parse(overrides)}
    except HydraException as error:
        raise ConfigError(explain(error)) from error


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _change_space(space: Any, overrides: Sequence[str]) -> Any:
    """A sweep's space with the command line's changes.

    `space={KEY: VALUES}` adds and replaces keys of a mapping, `space.KEY=VALUES` replaces one,
    `~space.KEY` removes one. A list of mappings can only be replaced whole. Hydra itself would
    take the dots of a swept key for levels, and merge no range into a list.

    Raises:
        ConfigError: If there is no such key to replace or remove.
    """
    for override in _parse(overrides):
        key, value = override.key_or_group, override.value()
        changes = value if key == "space" else {key.removeprefix("space."): value}
        if not isinstance(changes, dict) or (key == "space" and not isinstance(space, dict)):
            space = changes
            continue
        known = space if isinstance(space, dict) else {}
        for swept in changes:
            if swept not in known and not override.is_add():
                raise ConfigError(
                    f"space.{swept}: not swept so far; to sweep it: "
                    f"'+space={{{swept}:[VALUE,VALUE]}}'"
                )
        space = {**known, **changes}
        if override.is_delete():
            del space[key.removeprefix("space.")]
    return space


def format_override(key: str, value: Any) -> str:
    """The override that sets a key to a value, written so that Hydra reads the same value."""
    return f"{key}={_literal(value)}"


def list_sweeps() -> dict[str, str]:
    """Name of each sweep in conf/sweep, with the line that says what it is."""
    sweeps = {}
    for path in sorted((CONF / "sweep").glob("*.yaml")):
        comments = [line[1:].strip() for line in path.read_text().splitlines() if line[:1] == "#"]
        name = path.name.removesuffix(".yaml")
        sweeps[name] = next((c for c in comments if not c.startswith("@")), "")
    return sweeps


@functools.cache
def _cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()


def automatic_device(num_parameters: int) -> str:
    """What training.device=auto means for a model of this size on this machine."""
    large = num_parameters >= LARGE_MODEL_PARAMETERS
    return "cuda" if large or _cuda_is_available() else "cpu"


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    if not isinstance(value, str):
        return str(value)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) and value.lower() not in _WORDS:
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        siblings = sorted(node) if isinstance(node, dict) else sorted(config)
        raise ConfigError(explain_unknown_key(key, siblings))
    node[last] = value


def _find_public_folder(task: dict[str, Any], data_root: str | None) -> None:
    """Set a task's data_dir to its folder in `data_root`, unless it has one or needs none."""
    if data_root is None or task.get("data_dir") is not None:
        return
    source = task.get("source")
    if isinstance(source, dict) and (target := source.get(TARGET)):
        folder = getattr(resolve(target, "task.source"), "public_folder", None)
        task["data_dir"] = None if folder is None else str(Path(data_root) / folder)


def _hydra_compose(overrides: list[str]) -> DictConfig:
    """Hydra's own; a key that the chosen file leaves at its class's default can be set as well."""
    overrides = [f"++{o}" if o.startswith(_OPEN) else o for o in overrides]
    try:
        return hydra.compose("config", overrides, return_hydra_config=True)
    except HydraException as error:
        refused = re.search(r"Could not override '([\w.]+)'", str(error))
        key = refused.group(1) if refused else ""
        others = [o for o in overrides if o.partition("=")[0] != key]
        if len(others) == len(overrides) or "defaults list" in str(error):
            raise
        config = _hydra_compose(others)
        if not _has_default(config, key):
            raise ConfigError(_locate(config, key)) from error
    return _hydra_compose([o if o in others else f"+{o}" for o in overrides])


def _has_default(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else None
    if not isinstance(node, DictConfig) or TARGET not in node:
        return False
    package = "sweeps.schedulers" if parent == "scheduler" else "kerzoo"
    fields = dataclasses.fields(resolve(node[TARGET], parent, package))
    return name in {field.name for field in fields if field.init}


def _locate(config: DictConfig, key: str) -> str:
    """What a configuration has in place of a key; of a group with several options, which it is."""
    node: Any = config
    parts = key.split(".")
    depth = 0
    while isinstance(node, DictConfig) and depth < len(parts) - 1 and parts[depth] in node:
        node = node[parts[depth]]
        depth += 1
    siblings = sorted(set(map(str, node)) - {"hydra"}) if isinstance(node, DictConfig) else []
    several = depth and len(list((CONF / parts[0]).glob("*.yaml"))) > 1
    option = config.hydra.runtime.choices.get(parts[0]) if several else None
    return explain_unknown_key(".".join(parts[: depth + 1]), siblings, option)
