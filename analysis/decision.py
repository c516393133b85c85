"""Which arm to take, as far as the records decide it: facts, without words.

Confirmed differences decide, after Holm's correction; a screen only names who leads. Among arms
that are better than the baseline the one with the largest difference is recommended; if none is,
the baseline stays. The score is asked first, then the loss, then device seconds to the target.
An arm whose dev loss is not below that of the untrained model, by more than the margin of losses,
is never taken; where the baseline is one, there is nothing to compare with and nothing to take.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from analysis.comparison import OWN, TUNED, compare_arms
from analysis.load import Study
from analysis.margins import margins_of
from analysis.standings import Group, Standing, list_standings

State = Literal["nothing", "alone", "leads", "undecided", "keep", "use", "untrained"]
"""No result; nothing to compare with; a screen's first; open; the baseline stays; take an arm; no
arm, or not the baseline, beat the untrained model."""

OUTCOMES = (
    ("test score", "dev score"),
    ("test loss", "dev loss"),
    ("device seconds to target",),
)
"""What is asked in turn; of each the first that was measured."""

MAX_MORE_SEEDS = 100
"""More seeds than this are not advised."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An arm against the baseline in one outcome.

    Attributes:
        judgement: As `comparison.judge`.
        outcome: In which.
        difference: Of means; a ratio for costs.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        p: Holm's.
        pairs: Of seeds, on all tasks.
        more_seeds: That would probably decide; NaN where nothing can be said, infinity for never.
    """

    judgement: str
    outcome: str
    difference: float
    low: float
    high: float
    p: float
    pairs: int
    more_seeds: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a group of arms comes to.

    Attributes:
        group: The arms and where they stand.
        state: What can be said.
        arm: The arm that is recommended or leads; empty where there is none.
        verdicts: Arm → its verdicts, one for each outcome of OUTCOMES that was measured.
        question: Of `compare_arms`, the one that was answered.
        failing: The arms that train and did not beat the untrained model.
        margin: By which a dev loss must be below that of the untrained model to beat it.
    """

    group: Group
    state: State
    arm: str = ""
    verdicts: Mapping[str, tuple[Verdict, ...]] = dataclasses.field(default_factory=dict)
    question: str = ""
    failing: tuple[str, ...] = ()
    margin: float = math.nan

    @property
    def closest(self) -> Standing | None:
        """The zeroth-order method, or baseline, that trains to the lowest dev loss."""
        trained = [s for s in _rivals(self.group) if s.trains]
        return min(trained, key=lambda s: s.dev_loss, default=None)

    @property
    def standing(self) -> Standing | None:
        """Where the recommended arm stands."""
        return next((s for s in self.group.standings if s.arm == self.arm), None)

    @property
    def more_seeds(self) -> int | None:
        """The most seeds that an undecided arm needs in the first outcome, within reason."""
        asked = [v[0].more_seeds for v in self.verdicts.values() if v[0].judgement == "undecided"]
        known = [seeds for seeds in asked if seeds <= MAX_MORE_SEEDS]
        return int(max(known)) if known else None


def decide(study: Study) -> list[Decision]:
    """A decision for each group of arms; a single one without arms where nothing has finished."""
    groups = list_standings(study)
    if not groups:
        return [Decision(Group("", "", "", "", ()), "nothing")]
    compared = compare_arms(study)
    margin = margins_of(study).loss
    return [
        dataclasses.replace(
            _decide_group(group, compared, failing := _list_failing(group, margin)),
            failing=failing,
            margin=margin,
        )
        for group in groups
    ]


def _list_failing(group: Group, margin: float) -> tuple[str, ...]:
    """The arms that train and end no lower than step 0, or by less than the margin."""
    return tuple(s.arm for s in group.standings if s.trains and s.dev_loss >= s.start_loss - margin)


def drop_screened(decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions that count: who led a screen says nothing once its arms are confirmed."""
    confirmed = {(d.group.model, d.group.tuning) for d in decisions if d.group.phase == "confirm"}
    return [
        d
        for d in decisions
        if d.group.phase == "confirm" or (d.group.model, d.group.tuning) not in confirmed
    ]


def _decide_group(group: Group, compared: pd.DataFrame, failing: tuple[str, ...]) -> Decision:
    rivals = _rivals(group)
    base = group.baseline
    trained = [s for s in rivals if s.trains]
    is_untrained = bool(trained) and all(s.arm in failing for s in trained)
    is_untrained |= base is not None and base.arm in failing
    question, verdicts = _read_verdicts(group, compared)
    eligible = {arm: v for arm, v in verdicts.items() if arm in {s.arm for s in rivals}}
    winner = _find_winner({arm: v for arm, v in eligible.items() if arm not in failing})
    if is_untrained and not winner:
        return Decision(group, "untrained", "", verdicts, question)
    if len(rivals) < 2:
        return Decision(group, "alone", (rivals or list(group.standings))[0].arm)
    if not verdicts:
        return Decision(group, "leads", min(rivals, key=lambda s: s.dev_loss).arm)
    if winner or base is None:
        return Decision(group, "use", winner, verdicts, question)
    is_open = any(v[0].judgement == "undecided" for v in eligible.values())
    state: State = "undecided" if is_open else "keep"
    return Decision(group, state, base.arm, verdicts, question)


def _rivals(group: Group) -> list[Standing]:
    """The zeroth-order methods, and the baseline whatever it is."""
    return [s for s in group.standings if s.is_kernel or s.is_baseline]


def _read_verdicts(
    group: Group, compared: pd.DataFrame
) -> tuple[str, dict[str, tuple[Verdict, ...]]]:
    """The verdicts of the arms' own cells, else of those that dev chose, else at equal ones."""
    if compared.empty or group.phase != "confirm":
        return "", {}
    here = compared[(compared["model"] == group.model) & (compared["tuning"] == group.tuning)]
    here = here[here["pairs"] > 1]
    questions = [str(question) for question in here["question"].unique()]
    if not questions:
        return "", {}
    question = next((q for q in (OWN, TUNED) if q in questions), questions[0])
    here = here[here["question"] == question]
    verdicts = {}
    for arm, mine in here.groupby("arm", sort=False):
        rows = {str(row["outcome"]): row for row in mine.to_dict("records")}
        found = [
            next((_to_verdict(rows[name]) for name in names if name in rows), None)
            for names in OUTCOMES
        ]
        if found[0]:
            verdicts[str(arm)] = tuple(v for v in found if v)
    return question, verdicts


def _to_verdict(row: Mapping[Any, Any]) -> Verdict:
    return Verdict(
        str(row["judgement"]),
        str(row["outcome"]),
        float(row["difference"]),
        float(row["low"]),
        float(row["high"]),
        float(row["p_holm"]),
        int(row["pairs"]),
        float(row["more_seeds"]),
    )


def _find_winner(verdicts: Mapping[str, tuple[Verdict, ...]]) -> str:
    """The arm that is better in the first outcome that tells, and worse in none before it."""
    for place in range(len(OUTCOMES)):
        better = {
            arm: abs(math.log(v[place].difference)) if place == 2 else abs(v[place].difference)
            for arm, v in verdicts.items()
            if len(v) > place
            and v[place].judgement == "better"
            and all(before.judgement != "worse" for before in v[:place])
        }
        if better:
            return max(better, key=lambda arm: better[arm])
    return ""
