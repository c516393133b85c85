"""The first page in words: verdict, time beside score, recommendation, next stage, cautions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis.alternatives import describe_alternatives
from analysis.decision import Decision
from analysis.drawn_intervals import Scale
from analysis.formats import (
    MISSING,
    format_change,
    format_count,
    format_gib,
    format_level,
    format_loss,
    format_points,
    format_score,
)
from analysis.language import Language
from analysis.load import Study
from analysis.recommendation import Recommendation, recommend
from analysis.standings import Estimate, Standing

FIRST_ROWS = 4
"""Rows of the first page's table; the others are shown on demand, and in print."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A method in the table of the first page."""

    arm: str
    tags: list[str]
    setting: str
    checkpoint: str
    score: str
    score_interval: str
    score_bar: Markup
    target: str
    target_interval: str
    target_bar: Markup
    whole: str
    memory: str
    verdicts: list[str]
    is_chosen: bool
    is_first: bool


@dataclasses.dataclass(frozen=True)
class Overview:
    """What the first page says of one group of arms."""

    label: str
    headline: str
    reasons: list[str]
    caption: str
    headings: dict[str, str]
    rows: list[Row]
    notes: list[str]
    recommendation: Recommendation | None


def describe(study: Study, decisions: Sequence[Decision], language: Language) -> list[Overview]:
    """The decisions in words."""
    several = len(decisions) > 1
    return [_Writer(study, decision, language).write(several) for decision in decisions]


class _Writer:
    """Writes one group's part of the first page."""

    def __init__(self, study: Study, decision: Decision, language: Language) -> None:
        self.study = study
        self.decision = decision
        self.group = decision.group
        self.language = language
        self.score_name = name_score(study, language)
        self.device = name_device(study, language)

    def write(self, several: bool) -> Overview:
        say, group = self.language.say, self.group
        label = " · ".join(dict.fromkeys([group.model, group.tuning, group.phase, group.sweep]))
        baseline = group.baseline.arm if group.baseline else ""
        alternatives = describe_alternatives(self.decision, self.score_name, self.language)
        split = say(f"split.{self._split}")
        headings = {
            "score": say("table.score", score=capitalise(self.score_name), split=split),
            "target": say("table.target", device=self.device),
        }
        return Overview(
            label=label if several else "",
            headline=self._headline(baseline),
            reasons=[*self._reasons(baseline), *alternatives],
            caption=say("table.caption", device=self.device, score=self.score_name),
            headings=headings,
            rows=self._rows(),
            notes=self._notes(),
            recommendation=recommend(self.study, self.decision, self.language),
        )

    @property
    def _split(self) -> str:
        return "test" if self.group.is_tested else "dev"

    def _headline(self, baseline: str) -> str:
        decision, closest = self.decision, self.decision.closest
        key = f"headline.{decision.state}"
        if decision.state == "untrained":
            key += f"_{self._untrained}"
        start = format_loss(closest.start_loss) if closest else MISSING
        return self.language.say(key, arm=decision.arm, baseline=baseline, start=start)

    @property
    def _untrained(self) -> str:
        """Who did not beat the untrained model: all methods, those with a kernel, the baseline."""
        trained = {s.arm for s in self.group.standings if s.trains}
        if trained <= set(self.decision.failing):
            return "all"
        closest = self.decision.closest
        return "kernels" if closest and closest.arm in self.decision.failing else "baseline"

    def _reasons(self, baseline: str) -> list[str]:
        say, decision = self.language.say, self.decision
        if decision.state == "untrained":
            return [self._not_trained(baseline)]
        if decision.state == "nothing":
            trials = self.study.cells.drop_duplicates(["sweep", "trial_id"])
            statuses = self.language.statuses(trials)
            return [say("reason.nothing", trials=len(trials), statuses=statuses)]
        if decision.state == "use":
            return self._winning(baseline)
        chosen = decision.standing
        loss = format_loss(chosen.dev_loss) if chosen else MISSING
        if decision.state == "alone":
            return [say("reason.alone", runs=chosen.runs if chosen else 0, loss=loss)]
        if decision.state == "leads":
            base = self.group.baseline
            if base is None:
                absent = ", ".join(self.study.baselines[:1]) or MISSING
                return [say("reason.leads_alone", loss=loss, baseline=absent)]
            if decision.arm == base.arm:
                return [say("reason.leads_baseline", loss=loss)]
            base_loss = format_loss(base.dev_loss)
            return [say("reason.leads_other", loss=loss, baseline=base.arm, base_loss=base_loss)]
        if decision.state == "keep":
            others = len(decision.verdicts)
            return [say("reason.keep", others=others, score=self.score_name)]
        if decision.more_seeds:
            return [say("reason.undecided_soon", seeds=decision.more_seeds, score=self.score_name)]
        return [say("reason.undecided_never", score=self.score_name)]

    def _not_trained(self, baseline: str) -> str:
        closest, base = self.decision.closest, self.group.baseline
        return self.language.say(
            f"reason.untrained_{'baseline' if self._untrained == 'baseline' else 'all'}",
            arm=closest.arm if closest else MISSING,
            loss=format_loss(closest.dev_loss) if closest else MISSING,
            baseline=baseline,
            base_loss=format_loss(base.dev_loss) if base else MISSING,
            margin=format_level(self.decision.margin),
        )

    def _winning(self, baseline: str) -> list[str]:
        found = self.decision.verdicts[self.decision.arm]
        place = next(i for i, v in enumerate(found) if v.judgement == "better")
        verdict = found[place]
        form = (_plain_points, format_change, _percent)[place]
        kind = ("score", "loss", "time")[place]
        say = self.language.say
        won = say(
            f"reason.use_{kind}",
            score=self.score_name,
            baseline=baseline,
            difference=form(verdict.difference),
            low=form(verdict.low),
            high=form(verdict.high),
            pairs=verdict.pairs,
        )
        is_hollow = baseline in self.decision.failing
        return [won, say("reason.baseline_untrained", baseline=baseline)] if is_hollow else [won]

    def _rows(self) -> list[Row]:
        standings = sorted(self.group.standings, key=self._rank)
        scores = Scale([s.score for s in standings], self._reference("score"))
        times = Scale([s.target_seconds for s in standings], self._reference("target_seconds"), 0)
        first = FIRST_ROWS if len(standings) > FIRST_ROWS + 1 else len(standings)
        return [self._row(s, scores, times, i < first) for i, s in enumerate(standings)]

    def _rank(self, standing: Standing) -> tuple[bool, bool, float]:
        """The baseline first, then the arm that is recommended, then by score or by dev loss."""
        value = -standing.score.mean if self._split == "test" else standing.dev_loss
        is_chosen = standing.arm == self.decision.arm
        return not standing.is_baseline, not is_chosen, math.inf if math.isnan(value) else value

    def _reference(self, name: str) -> float:
        base = self.group.baseline
        return getattr(base, name).mean if base else math.nan

    def _row(self, standing: Standing, scores: Scale, times: Scale, is_first: bool) -> Row:
        say = self.language.say
        score, target = standing.score, standing.target_seconds
        is_chosen = standing.arm == self.decision.arm
        tags = [say("table.baseline")] if standing.is_baseline else []
        if is_chosen and self.decision.state in ("use", "leads"):
            tags.append(say(f"table.{'recommended' if self.decision.state == 'use' else 'leads'}"))
        shown = self.language.duration(target.mean)
        base = self._reference("target_seconds")
        if math.isnan(target.mean) and self.group.has_target and standing.runs:
            reached = {"reached": standing.reached, "runs": standing.runs}
            shown = say("table.not_reached", **reached) if standing.is_kernel else MISSING
        elif not standing.is_baseline and base > 0:
            shown = say("table.relative", time=shown, ratio=f"{target.mean / base:.2f}")
        return Row(
            arm=standing.arm,
            tags=tags,
            setting=self._setting(standing),
            checkpoint=self._checkpoint(standing),
            score=format_score(score.mean),
            score_interval=self._interval(score, format_score),
            score_bar=scores.draw(score),
            target=shown,
            target_interval=self._interval(target, self.language.duration),
            target_bar=times.draw(target),
            whole=self.language.duration(standing.seconds.mean),
            memory=format_gib(standing.memory_gib),
            verdicts=self._verdicts(standing),
            is_chosen=is_chosen and self.decision.state in ("use", "leads"),
            is_first=is_first,
        )

    def _interval(self, estimate: Estimate, form: Any) -> str:
        if math.isnan(estimate.low):
            return ""
        low, high = form(estimate.low), form(estimate.high)
        number, _, unit = low.partition(" ")
        low = number if high.endswith(f" {unit}") else low
        return self.language.say("table.interval", low=low, high=high)

    def _checkpoint(self, standing: Standing) -> str:
        """Where the best evaluation was, if it was not the last of every run."""
        if not standing.passes < standing.budget:
            return ""
        return self.language.say(
            "table.checkpoint" if standing.runs == 1 else "table.checkpoints",
            passes=format_count(standing.passes),
            budget=format_count(standing.budget),
            loss=format_loss(standing.last_loss),
        )

    def _setting(self, standing: Standing) -> str:
        cells = self._cells(standing)
        texts = [
            ", ".join(
                text
                for text in (
                    f"ε {format_level(cell['perturbation_scale'])}"
                    if not pd.isna(cell["perturbation_scale"])
                    else "",
                    f"lr {format_level(cell['learning_rate'])}"
                    if not pd.isna(cell["learning_rate"])
                    else "",
                    str(cell["extra"]),
                )
                if text
            )
            for cell in cells.to_dict("records")
        ]
        return "; ".join(dict.fromkeys(text for text in texts if text))

    def _cells(self, standing: Standing) -> pd.DataFrame:
        """The standing's cells, one row each."""
        cells = self.study.cells
        return cells[cells["setting"].isin(standing.settings)].drop_duplicates("setting")

    def _verdicts(self, standing: Standing) -> list[str]:
        say = self.language.say
        if standing.is_baseline:
            return []
        found = self.decision.verdicts.get(standing.arm)
        if not found:
            return [say("verdict.unconfirmed")] if self.group.baseline else []
        forms = (("score", format_points), ("loss", format_change), ("time", _ratio))
        return [
            say(
                f"verdict.{kind}",
                verdict=say(f"verdict.{verdict.judgement}"),
                difference=form(verdict.difference),
            )
            for verdict, (kind, form) in zip(found, forms, strict=False)
        ]

    def _notes(self) -> list[str]:
        say, standings = self.language.say, self.group.standings
        bases = {standing.score.basis for standing in standings}
        notes = []
        if "seeds" in bases:
            notes.append(say("table.note_seeds"))
        elif "examples" in bases:
            notes.append(say("table.note_examples"))
        if self.group.baseline:
            notes.append(say(f"table.{'note_target' if self.group.has_target else 'no_target'}"))
        if any(standing.passes < standing.budget for standing in standings):
            notes.append(say("table.note_checkpoint"))
        tasks = max((standing.tasks for standing in standings), default=1)
        return [*notes, say("table.note_tasks", tasks=tasks)] if tasks > 1 else notes


def name_score(study: Study, language: Language) -> str:
    """What a score means, in words."""
    names = study.score_name.split(" or ")
    return " / ".join(language.say(f"score.{name}") for name in names)


def name_device(study: Study, language: Language) -> str:
    """What trials ran on, in words."""
    devices = {str((s.plan.get("cost") or {}).get("device") or "cpu") for s in study.sweeps}
    return " / ".join(language.say(f"device.{name}") for name in sorted(devices & {"cpu", "cuda"}))


def capitalise(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def _plain_points(value: float) -> str:
    return format_points(value).removeprefix("+")


def _percent(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.0f} %"


def _ratio(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f}"
