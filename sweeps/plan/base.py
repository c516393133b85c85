"""What a plan is: the explicit list of trials and what plan.json says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kerzoo.options import TrialOptions
from kerzoo.records import TrialFolder, TrialSpec, write_json
from sweeps import schema
from sweeps.compose import ConfigError
from sweeps.schedulers import FIFO


@dataclasses.dataclass(frozen=True)
class Plan:
    """A validated plan.

    Attributes:
        sweep: The sweep's own values.
        folder: Its results folder.
        specs: The trials, in starting order.
        options: The same trials as objects.
        content: What plan.json holds.
        whole: The plan that this one is a part of, whose content it shares; None for a whole one.
    """

    sweep: schema.SweepConfig
    folder: Path
    specs: list[TrialSpec]
    options: list[TrialOptions]
    content: dict[str, Any]
    whole: Plan | None = None

    def part(self, phase: str) -> Plan:
        """The trials of a phase alone; those of "confirm" under no early stopping."""
        chosen = [(s, o) for s, o in zip(self.specs, self.options, strict=True) if s.phase == phase]
        sweep = self.sweep
        if phase == "confirm":
            sweep = dataclasses.replace(sweep, scheduler=FIFO("fifo"))
        specs, options = [s for s, _ in chosen], [o for _, o in chosen]
        return Plan(sweep, self.folder, specs, options, self.content, whole=self)

    def trial_folder(self, trial: str) -> TrialFolder:
        """The folder of a trial."""
        return TrialFolder(self.folder / "trials" / trial)

    def write(self, **values: Any) -> None:
        """Write plan.json, with some entries replaced."""
        self.content.update(values)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "plan.json", self.content)

    def become(self, other: Plan) -> None:
        """Take over all of what the same command came to later."""
        self.specs[:], self.options[:] = other.specs, other.options
        self.content.clear()
        self.content.update(other.content)

    def create_trials(self) -> None:
        """Write a trial.json for each new trial, with the search that chose it if one did."""
        generations = self.content.get("generations", {})
        for spec in self.specs:
            folder = self.trial_folder(spec.trial_id)
            folder.create(spec)
            if spec.trial_id in generations and "search" not in folder.read():
                about = {key: self.content["search"][key] for key in ("name", "purpose")}
                folder.update(search={**about, "generation": generations[spec.trial_id]})

    def check_available(self) -> None:
        """Check that models and data can be had, before any work starts.

        Raises:
            ConfigError: Saying what is missing and which settings help.
        """
        models = {repr(options.model): options.model for options in self.options}
        judged = ("test",) if self.sweep.phase != "screen" else ()
        tasks = {
            (repr(o.task), o.method.data_splits): (o.task, (*o.method.data_splits, *judged))
            for o in self.options
        }
        try:
            for model in models.values():
                model.check_available()
            for task, splits in tasks.values():
                task.check_available(splits)
        except ValueError as error:
            raise ConfigError(str(error)) from error
