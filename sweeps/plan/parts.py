"""What is no comparison of arms: parts swept inside one arm, and an arm under another kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kerzoo.methods import ZerothOrder
from sweeps.compose import CONF, compose
from sweeps.plan.base import Plan

PARTS = tuple(part for part in ZerothOrder.parts if part != "tuning")
"""The groups that an arm is composed of."""


def warn_of_parts(plan: Plan) -> list[str]:
    """At most one warning, for what reports do not compare although it may have been meant so.

    Policy: reports compare arms, each at its best cell. A part that is swept while there are
    several arms is a setting of each, as a learning rate is, and is not warned of, but for the
    kernel, which makes an arm what it is called after.
    """
    swept = _swept(plan)
    arms = sorted({cell["arm"] for cell in plan.content["cells"]})
    if any(_is_kernel(key) for key in swept) or (swept and len(arms) == 1):
        listed = ", ".join(f"{key}: [{', '.join(map(str, v))}]" for key, v in swept.items())
        return [
            f"warning: {listed} is swept inside {_name(arms)}: what is compared are arms, each at "
            f"its best cell, and not the settings of one. {_advise(swept)}"
        ]
    typed = [o for o in plan.content["overrides"] if _is_kernel(o.partition("=")[0].lstrip("+"))]
    changed = _with_other_kernels(plan) if typed else []
    if not changed:
        return []
    kernels = [o.partition("=")[2] for o in typed if o.partition("=")[0] == "kernel"]
    kept = "keep their names" if len(changed) > 1 else "keeps its name"
    return [
        f"warning: {' '.join(typed)} replaces the kernel of {_name(changed)}, which {kept} in "
        f"every report. {_advise({'kernel': kernels}, plan.sweep.baseline)}"
    ]


def _swept(plan: Plan) -> dict[str, list[Any]]:
    """Swept key of a part → its values, where there are several."""
    keys = [key for key in plan.content["factors"] if key in PARTS or _is_kernel(key)]
    cells = [cell["values"] for cell in plan.content["cells"]]
    values = {key: list(dict.fromkeys(c[key] for c in cells if key in c)) for key in keys}
    return {key: listed for key, listed in values.items() if len(listed) > 1}


def _with_other_kernels(plan: Plan) -> list[str]:
    """The arms of which a trial has not the kernel that the arm's file chooses."""
    used = {
        spec.trial_id: spec.config["kernel"]
        for spec, options in zip(plan.specs, plan.options, strict=True)
        if options.uses("kernel")
    }
    own: dict[str, Any] = {}
    changed = set()
    for cell in plan.content["cells"]:
        option = cell["values"].get("arm", plan.content["choices"]["arm"])
        if option not in own:
            own[option] = compose([f"arm={option}"]).config["kernel"]
        if used.get(cell["trial_id"], own[option]) != own[option]:
            changed.add(cell["arm"])
    return sorted(changed)


def _advise(parts: dict[str, list[Any]], *others: str) -> str:
    """Which arms to write instead: those that are called after these kernels, or new ones."""
    arms = ["mezo" if kernel == "constant" else str(kernel) for kernel in parts.get("kernel", ())]
    known = all((CONF / "arm" / f"{arm}.yaml").exists() for arm in arms)
    if set(parts) != {"kernel"} or not arms or not known:
        return (
            "Write an arm for each: a file in conf/arm that chooses its parts, as legendre4.yaml "
            "there does"
        )
    listed = ", ".join(dict.fromkeys([*others, *arms]))
    return f"Write arm: [{listed}] in the space instead"


def _is_kernel(key: str) -> bool:
    return key.partition(".")[0] == "kernel"


def _name(arms: Sequence[str]) -> str:
    return f"the arm{'s' if len(arms) > 1 else ''} {', '.join(arms)}"
