"""Trials that ran under their true ids, as a results folder holds them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tiny_trials import created, trial_spec

from kerzoo.attempt import run_trial
from kerzoo.identity import trial_id
from kerzoo.options import TrialOptions
from kerzoo.records import Row, TrialFolder, TrialSpec
from kerzoo.workspace import Workspace


def planned(config: dict[str, Any]) -> TrialSpec:
    """The trial as a plan lists it."""
    options = TrialOptions.from_config(config)
    fingerprints = options.model.fingerprint(), options.task.fingerprint()
    spec = trial_spec(config, trial_id(config, options.kernel, *fingerprints))
    return dataclasses.replace(spec, rungs=options.rungs)


def recorded(config: dict[str, Any], results: Path, num_rows: int | None = None) -> TrialFolder:
    """Run a trial to its end, or until it yielded some rows."""
    spec = planned(config)
    trial = created(results / "trials", spec)
    generator = run_trial(spec, trial, Workspace())
    for number, _ in enumerate(generator, start=1):
        if number == num_rows:
            generator.close()
    return trial


def best_row(trial: TrialFolder) -> Row:
    """The evaluation of lowest dev loss after an update."""
    return min((row for row in trial.rows() if row["step"]), key=lambda row: row["dev_loss"])
