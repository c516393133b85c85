"""A race on Ray Tune's scheduler interface: the only module here that imports Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from kerzoo.records import Row
from sweeps.events import EventLog
from sweeps.schedulers.enrolment import entrants_of
from sweeps.schedulers.race import Race
from sweeps.schedulers.standings import Verdict

if TYPE_CHECKING:
    from sweeps.plan import Plan

_ACTIONS = {
    "continue": TrialScheduler.CONTINUE,
    "pause": TrialScheduler.PAUSE,
    "stop": TrialScheduler.STOP,
}


class RungScheduler(FIFOScheduler):
    """Tells Tune what a race says.

    Every trial first reports `{"rung": None}`, before it does any work: one that waits at an
    undecided rung since an earlier start is paused there and then, one that was stopped ends.

    Args:
        race: The race, resumed.
        on_pause: Called with the id of a trial that is paused.
    """

    def __init__(self, race: Race, on_pause: Callable[[str], None] = lambda trial: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.race = race
        self._on_pause = on_pause
        self._controller: Any = None

    @classmethod
    def for_plan(cls, plan: Plan, rows: Mapping[str, Iterable[Row]]) -> RungScheduler:
        """The scheduler of a plan, as far as its events and records say.

        Args:
            plan: The plan.
            rows: Of all its trials.
        """
        scheduler = plan.sweep.scheduler
        log = EventLog(plan.folder / "events.jsonl")
        race = Race(scheduler, entrants_of(scheduler, plan.content), log)
        folders = {spec.trial_id: plan.trial_folder(spec.trial_id) for spec in plan.specs}
        race.resume(rows, [t for t, folder in folders.items() if folder.status == "failed"])
        return cls(race, lambda trial: folders[trial].update(status="paused"))

    def gave_up(self, trial: str) -> None:
        """A trial failed for good: those that wait for it need not any longer."""
        self._stop_paused(self.race.lose(trial))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Remember who stops trials."""
        self._controller = tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """What a trial is to do that began, or arrived at a rung."""
        identity = str(trial.config["trial_id"])
        if result.get("rung") is not None:
            self._stop_paused(self.race.arrive(identity, result))
        standing = self.race.standing(identity)
        if standing == "pause":
            self._on_pause(identity)
        return str(_ACTIONS[standing])

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A pending trial, or a paused one that waits for no verdict any longer."""
        trials = tune_controller.get_trials()
        pending = (trial for trial in trials if trial.status == Trial.PENDING)
        paused = (
            trial
            for trial in trials
            if trial.status == Trial.PAUSED
            and self.race.standing(str(trial.config["trial_id"])) != "pause"
        )
        return next(pending, None) or next(paused, None)

    def _stop_paused(self, verdicts: Iterable[Verdict]) -> None:
        """End the paused trials that were decided against; any other ends when it reports next."""
        stopped = {v.entrant.trial for v in verdicts if v.decision == "stop"}
        if not stopped or self._controller is None:
            return
        for trial in list(self._controller.get_trials()):
            if trial.config["trial_id"] in stopped and trial.status == Trial.PAUSED:
                self._controller.stop_trial(trial)
