"""No training: the model as it is, with or without demonstrations in front of the prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from kerzoo.methods.base import Learner, Method
from kerzoo.records import TrialFolder
from kerzoo.tasks.demonstrations import FITS, Fit
from kerzoo.trajectory import StepRecord
from kerzoo.tuning import NoTuning, Tuning

if TYPE_CHECKING:
    from kerzoo.options import TrialOptions
    from kerzoo.workspace import Bench


@dataclasses.dataclass(frozen=True)
class NoTraining(Method):
    """Zero-shot, or in-context learning: one evaluation, no training step, one row.

    Args:
        num_demonstrations: k solved training examples in front of every prompt
            (`kerzoo.tasks.demonstrations`), drawn by the task's data seed; 0 for zero-shot.
        fit: "refuse" demonstrations that the context window has no room for, or "cut" whole ones
            of those examples that need it, the first of them first.

    Raises:
        ValueError: For a value outside its range.

    Source: Brown et al. 2020, arXiv 2005.14165; 32 demonstrations in Malladi et al. 2023.
    """

    num_demonstrations: int = 0
    fit: Fit = "refuse"

    parts = ()
    numbers = frozenset()
    splits = ("dev",)
    changes_weights = False

    def __post_init__(self) -> None:
        if self.num_demonstrations < 0:
            raise ValueError(f"num_demonstrations must be ≥ 0, got {self.num_demonstrations}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, got {self.fit!r}")

    @property
    def demonstrations(self) -> tuple[int, Fit]:
        """The contract's."""
        return self.num_demonstrations, self.fit

    def check(self, options: TrialOptions) -> None:
        """Demonstrations need a task that has them."""
        if self.num_demonstrations:
            options.task.check_demonstrations(self.num_demonstrations)

    def forward_passes_per_step(self, options: TrialOptions) -> int:
        """No step, no cost: evaluation is not counted."""
        return 0

    def num_steps(self, options: TrialOptions) -> int:
        """None."""
        return 0

    def budget(self, options: TrialOptions) -> int:
        """Nothing."""
        return 0

    def rungs(self, options: TrialOptions) -> list[int]:
        """None after step 0."""
        return []

    def tuning(self, options: TrialOptions) -> Tuning:
        """Nothing moves, so that the configuration's tuning cannot change a bit."""
        return NoTuning()

    def start(self, options: TrialOptions, bench: Bench, folder: TrialFolder) -> _Onlooker:
        """A learner that is only asked to evaluate."""
        return _Onlooker(options, bench)


class _Onlooker(Learner):
    """The contract without steps."""

    def indices(self, step: int) -> list[int]:
        """There are none."""
        raise AssertionError("a method without training makes no step")

    def advance(self, step: int) -> tuple[float, ...] | None:
        """Never asked for."""
        raise AssertionError("a method without training makes no step")

    def replay(self, record: StepRecord) -> None:
        """Never asked for."""
        raise AssertionError("a method without training makes no step")

    def resume(self, logged: Sequence[StepRecord], evaluated: Container[int]) -> int:
        """Nothing to make again."""
        return 0

    def measure(self, step: int) -> int:
        """Takes no training pass."""
        return 0
