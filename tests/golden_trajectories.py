"""Golden trajectories: the numbers of short trials, stored in tests/golden.

After a change that is meant to change them, raise METHOD_VERSION in kerzoo/__init__.py, because
trials that ran before are no longer the same, and make them again:

    PYTHONPATH=. python tests/golden_trajectories.py
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tiny_trials import FULL, LORA_LAST, created, trial_config, trial_spec, write_sst2

from kerzoo import METHOD_VERSION
from kerzoo.attempt import run_trial
from kerzoo.methods import ZerothOrder
from kerzoo.options import TrialOptions
from kerzoo.trajectory import read_trajectory
from kerzoo.workspace import Workspace
from sweeps.compose import CONF, compose

FOLDER = Path(__file__).parent / "golden"
LEARNING_RATE = 0.02
NUMBERS = ("num_directions", "r_scope", "precision")
NUM_STEPS = 5


def cases() -> dict[str, dict[str, Any]]:
    """What to change in the tiny trial: for every shipped arm, and for some combinations."""
    arms = zeroth_order_arms()
    chosen = {arm: _parts(f"arm={arm}") for arm in arms}
    half = _parts("arm=legendre4", "bandwidth=half")
    chosen["legendre4-half-lora_last"] = half | {"tuning": LORA_LAST}
    linear = _parts("arm=kerzoo_paper", "bandwidth=linear", "training.num_directions=3")
    chosen["kerzoo_paper-linear-3_directions"] = linear
    for perturbation in ("sphere", "rademacher"):
        chosen[f"mezo-{perturbation}"] = _parts("arm=mezo", f"perturbation={perturbation}")
    for momentum in ("buffer", "replay", "coupled_copy"):
        chosen[f"mezo-{momentum}"] = _parts("arm=mezo", f"momentum={momentum}")
    decayed = _parts("arm=mezo", "learning_rate_schedule=cosine", "training.precision=inplace")
    chosen["mezo-cosine-inplace-weight_decay"] = decayed | {"weight_decay": 0.1}
    chosen["mezo-full"] = _parts("arm=mezo") | {"tuning": FULL, "learning_rate": 1e-4}
    return chosen


def zeroth_order_arms() -> list[str]:
    """The shipped arms that train by forward passes alone."""
    arms = sorted(path.name.removesuffix(".yaml") for path in (CONF / "arm").glob("*.yaml"))
    return [a for a in arms if compose([f"arm={a}"]).choices["method"] == "zeroth_order"]


def run_case(changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run five steps and return what is stored of them."""
    config = trial_config(
        write_sst2(folder / "sst2"), **{"learning_rate": LEARNING_RATE, "rungs": [1.0]} | changes
    )
    config["training"]["forward_passes"] = 12  # a first step of whatever length
    per_step = TrialOptions.from_config(config).forward_passes_per_step
    config["training"]["forward_passes"] = NUM_STEPS * per_step
    spec = trial_spec(config)
    trial = created(folder, spec)
    rows = list(run_trial(spec, trial, Workspace()))
    steps = read_trajectory(trial.trajectory_path)
    return {
        "method_version": METHOD_VERSION,
        "dev_losses": [row["dev_loss"] for row in rows],
        "losses": [loss for step in steps for loss in step.losses],
    }


def _parts(*overrides: str) -> dict[str, Any]:
    config = compose(overrides).config
    parts = {part: config[part] for part in ZerothOrder.parts if part != "tuning"}
    numbers = {name: config["training"][name] for name in NUMBERS}
    return {**parts, **numbers}


def main() -> None:
    """Make all golden trajectories again."""
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, changes in cases().items():
        with TemporaryDirectory() as folder:
            values = run_case(changes, Path(folder))
        (FOLDER / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")
        print(name)


if __name__ == "__main__":
    main()
