"""A confirmed comparison with known numbers, and plain readings of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from records_factory import SEED, SimulatedSweep

from analysis.comparison import OWN

NOISE = (0.000, 0.011, -0.007, 0.004, -0.009, 0.013)


def noisy_gain(values: Mapping[str, Any]) -> float:
    """Arm b is .02 better than a on average, with noise over the seeds; c is a itself."""
    seed = int(values[SEED])
    shared = 0.1 + 0.005 * seed
    return shared + (0.02 + NOISE[seed] if values["arm"] == "b" else 0.0)


def write_confirmed(root: Path, **changes: Any) -> Path:
    defaults: dict[str, Any] = {
        "arms": ("a", "b", "c"),
        "epsilons": (0.01,),
        "learning_rates": (0.01,),
        "seeds": range(6),
        "gain": noisy_gain,
    }
    folder = SimulatedSweep(**{**defaults, **changes}).write(root)
    for path in folder.glob("trials/*/trial.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"phase": "confirm"}))
    return folder


def final_losses(folder: Path, arm: str) -> dict[int, float]:
    losses = {}
    for path in sorted((folder / "trials").iterdir()):
        rows = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
        if rows[-1]["arm"] == arm and not rows[-1]["diverged"]:
            losses[rows[-1]["seed"]] = rows[-1]["dev_loss"]
    return losses


def find(frame: pd.DataFrame, arm: str, outcome: str = "dev loss") -> dict[str, Any]:
    mask = (frame["question"] == OWN) & (frame["arm"] == arm) & (frame["outcome"] == outcome)
    (row,) = frame[mask].to_dict("records")
    return {str(key): value for key, value in row.items()}
