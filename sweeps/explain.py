"""What is wrong with an override, in words: which key, what is wrong, what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Sequence

from sweeps.schema import SweepConfig

_SWITCHES = {field.name for field in dataclasses.fields(SweepConfig) if field.type == "bool"}


def explain_spelling(override: str, sweeps: Collection[str]) -> str | None:
    """What an argument lacks to be an override; None if it may be one.

    Args:
        override: As typed.
        sweeps: Names of the sweeps that there are.
    """
    key, equals, value = override.partition("=")
    if key.startswith("-"):
        name = key.lstrip("-").replace("-", "_")
        meant = value if equals else ("true" if name in _SWITCHES else "VALUE")
        return f"{override}: options are written KEY=VALUE, without dashes: {name}={meant}"
    if equals or key.startswith("~"):
        return None
    if override in sweeps:
        return f"{override}: a sweep is chosen by +sweep={override}"
    return f"{override}: an override is written KEY=VALUE{suggest(override, sweeps)}"


def explain(error: Exception) -> str:
    """A Hydra or OmegaConf error as: which key, what is wrong, what is allowed."""
    cause = error.__cause__
    text = str(error)
    if "--multirun" in text:
        override = re.search(r"'(\S+?)=(.*?)'", text)
        key, values = override.groups() if override else ("KEY", "VALUE,VALUE")
        return (
            f"{key}: takes one value, got {values}; to sweep it: '+space={{{key}:[VALUE,VALUE]}}'"
        )
    if "Available options" in text:
        head, _, options = text.partition("Available options in ")
        group, _, listed = options.partition(":\n")
        names = [line.strip() for line in listed.splitlines() if line.startswith("\t")]
        names = [name for name in names if not name.startswith("provider=")]
        asked = re.search(r"Could not find '(.+?)'", head)
        value = asked.group(1).rpartition("/")[2] if asked else "?"
        group = group.strip("'")
        return (
            f"{group}: no option {value!r}{suggest(value, names)}; {group} is one of: "
            + ", ".join(names)
        )
    match = re.search(r"full_key: (\S+)", str(cause) if cause is not None else text)
    if cause is not None and match:
        reason = str(cause).splitlines()[0]
        return f"{match.group(1)}: {reason}"
    lines = [line for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
    return " ".join(line.strip() for line in lines)


def explain_unknown_key(key: str, siblings: Sequence[str], option: str | None = None) -> str:
    """That there is no such key, and which there are beside it.

    Args:
        key: With dots.
        siblings: The keys beside it.
        option: Of the key's group, where another option may have the key.
    """
    parent, _, last = key.rpartition(".")
    group, meant = key.partition(".")[0], suggest(last, siblings)
    where = f"{parent} has" if parent else "the configuration has"
    if option is not None:
        where = f"{parent} of {group}={option} has"
    told = f"{key}: no such key{meant}; {where}: {', '.join(siblings)}"
    if option is None or meant:
        return told
    return (
        f"{told}. An override reaches every {group} of a sweep: what one alone needs is written "
        f"into its file, conf/{group}/NAME.yaml"
    )


def suggest(word: str, options: Collection[str]) -> str:
    """The option that the word is near to, as a question in parentheses."""
    close = difflib.get_close_matches(word, options, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
