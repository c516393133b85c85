"""What is recommended, where each arm stands, and what is to be run next."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from records_factory import EPSILON, LEARNING_RATE, SEED, START, SimulatedSweep

from analysis.comparison import compare_arms
from analysis.decision import decide, drop_screened
from analysis.formats import MISSING
from analysis.language import LANGUAGES, load_language
from analysis.load import Study, load_study
from analysis.overview import Overview, describe
from analysis.speed import set_target
from analysis.stages import plan_next
from analysis.statistics import paired_mean, wilson_interval
from analysis.tables import best_at_final_rung

NOISE = (0.000, 0.011, -0.007, 0.004, -0.009, 0.013)


def load(root: Path, **options: Any) -> Study:
    return load_study([SimulatedSweep(**options).write(root)])


def confirm(root: Path, lead: float, **changes: Any) -> Study:
    """Six seeds of one cell each; kerzoo_paper is better by `lead`, give or take some noise."""

    def gain(values: Mapping[str, Any]) -> float:
        is_paper = values["arm"] == "kerzoo_paper"
        return 0.1 + 0.01 * int(values[SEED]) + is_paper * (lead + NOISE[int(values[SEED])])

    options = {
        "phase": "confirm",
        "epsilons": (0.01,),
        "learning_rates": (0.01,),
        "seeds": range(6),
        "gain": gain,
    }
    return load(root, **{**options, **changes})


def test_a_screen_names_who_leads_and_recommends_nothing(tmp_path: Path) -> None:
    (decision,) = decide(load(tmp_path))
    assert (decision.state, decision.arm) == ("leads", "kerzoo_paper")
    assert not decision.verdicts


def test_an_arm_that_is_better_when_confirmed_is_recommended(tmp_path: Path) -> None:
    (decision,) = decide(confirm(tmp_path, lead=0.04))
    assert (decision.state, decision.arm) == ("use", "kerzoo_paper")
    assert decision.verdicts["kerzoo_paper"][0].judgement == "better"
    assert decision.verdicts["kerzoo_paper"][0].pairs == 6


def test_the_baseline_is_kept_where_an_arm_is_worse(tmp_path: Path) -> None:
    (decision,) = decide(confirm(tmp_path, lead=-0.04))
    assert (decision.state, decision.arm) == ("keep", "mezo")


def test_an_open_question_keeps_the_baseline_and_says_how_many_seeds_would_answer_it(
    tmp_path: Path,
) -> None:
    study = confirm(tmp_path, lead=0.003)
    (decision,) = decide(study)
    assert (decision.state, decision.arm) == ("undecided", "mezo")
    assert decision.more_seeds == decision.verdicts["kerzoo_paper"][0].more_seeds
    (stage,) = plan_next(study, [decision])
    assert (stage.kind, stage.seeds, stage.trials) == (
        "more",
        decision.more_seeds,
        2 * decision.more_seeds,
    )
    seeds = list(range(6 + stage.seeds))
    assert f"training.seed:{str(seeds).replace(' ', '')}" in stage.command
    assert "name=simulated " in stage.command


def falls(**gains: float) -> Callable[[Mapping[str, Any]], float]:
    return lambda values: gains[values["arm"]]


@pytest.mark.parametrize("phase", ["screen", "confirm"])
@pytest.mark.parametrize(
    ("gains", "headline"),
    [
        (
            {"mezo": 0.003, "kerzoo_paper": -0.2, "adamw": -0.1},
            "No method beat the untrained model (dev loss 0.7000).",
        ),
        (
            {"mezo": -0.01, "kerzoo_paper": 0.03, "adamw": 0.0},
            "The baseline mezo did not beat the untrained model (dev loss 0.7000).",
        ),
    ],
)
def test_no_training_is_recommended_that_does_not_beat_the_untrained_model(
    tmp_path: Path, phase: str, gains: dict[str, float], headline: str
) -> None:
    study = load(tmp_path, arms=tuple(gains), gain=falls(**gains), phase=phase, epsilons=(0.01,))
    (decision,) = decide(study)
    assert (decision.state, decision.arm) == ("untrained", "")
    (page,) = describe(study, [decision], load_language("en"))
    assert page.headline == headline
    assert page.recommendation is None
    assert not any(row.is_chosen for row in page.rows)
    (stage,) = plan_next(study, [decision])
    assert (stage.kind, stage.command) == ("retune", "")
    assert "recommended" in page.reasons[0]


def test_an_arm_that_is_better_than_a_baseline_that_learned_nothing_must_learn_itself(
    tmp_path: Path,
) -> None:
    for lead, state in ((-0.1, "untrained"), (0.04, "use")):
        low = {"gain": lambda v, x=lead: -0.2 + (0.2 + x + 0.001 * NOISE[v[SEED]]) * is_paper(v)}
        study = confirm(tmp_path / state, lead=0.0, **low)
        (decision,) = decide(study)
        assert decision.verdicts["kerzoo_paper"][0].judgement == "better"
        assert decision.state == state
        assert "mezo" in decision.failing
    (page,) = describe(study, [decision], load_language("en"))
    assert "mezo did not beat the untrained model" in page.reasons[1]


def is_paper(values: Mapping[str, Any]) -> bool:
    return values["arm"] == "kerzoo_paper"


def test_what_was_confirmed_stands_before_what_was_screened(tmp_path: Path) -> None:
    folders = [
        SimulatedSweep(name=phase, phase=phase).write(tmp_path) for phase in ("screen", "confirm")
    ]
    assert [d.group.phase for d in decide(load_study(folders))] == ["confirm", "screen"]


def test_one_arm_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    (decision,) = decide(load(tmp_path, arms=("kerzoo_paper",)))
    assert (decision.state, decision.arm) == ("alone", "kerzoo_paper")


@pytest.mark.parametrize("fate", ["running", "failed", "diverged"])
def test_without_a_finished_trial_nothing_is_decided(tmp_path: Path, fate: str) -> None:
    study = load(tmp_path, fate=lambda values: fate)
    (decision,) = decide(study)
    assert decision.state == "nothing"
    assert decision.standing is None
    (overview,) = describe(study, [decision], load_language("en"))
    assert overview.headline == "No result yet."
    assert "None of 8 trials" in overview.reasons[0]


def test_standings_are_those_of_a_plain_recomputation(tmp_path: Path) -> None:
    (decision,) = decide(confirm(tmp_path, lead=0.04))
    base, paper = decision.group.standings
    scores = [0.5 + 0.1 + 0.01 * seed for seed in range(6)]
    reference = paired_mean(scores)
    assert (base.score.mean, base.score.low, base.score.high) == pytest.approx(reference[:3])
    assert base.score.basis == "seeds"
    assert base.seconds.mean == 36.0
    assert base.dev_loss == pytest.approx(START - sum(scores) / 6 + 0.5)
    assert (base.reached, base.runs) == (6, 6)
    # The target is the loss that all of the baseline's runs reached, .6: seed 0's.
    gains = [0.14 + 0.01 * seed + NOISE[seed] for seed in range(6)]
    rungs = [next(r for r in (36, 72, 144) if gain * r / 144 >= 0.1 - 1e-12) for gain in gains]
    assert paper.target_seconds.mean == pytest.approx(0.25 * sum(rungs) / 6)


def test_an_arm_that_never_gets_there_has_no_time(tmp_path: Path) -> None:
    (decision,) = decide(confirm(tmp_path, lead=-0.09))
    paper = decision.group.standings[1]
    assert math.isnan(paper.target_seconds.mean)
    assert paper.reached < paper.runs == 6


def test_a_loss_that_the_untrained_model_had_is_no_target(tmp_path: Path) -> None:
    study = confirm(tmp_path, lead=0.0, gain=lambda values: -0.1 - 0.01 * int(values[SEED]))
    (decision,) = decide(study)
    assert not decision.group.has_target
    assert all(math.isnan(s.target_seconds.mean) for s in decision.group.standings)
    assert "device seconds to target" not in set(compare_arms(study).query("pairs > 0")["outcome"])
    (page,) = describe(study, [decision], load_language("en"))
    assert {row.target for row in page.rows} == {MISSING}
    assert any("the untrained model was there before" in note for note in page.notes)


def test_a_target_that_one_run_had_before_training_is_none() -> None:
    lowest, starts = pd.Series([0.6, 0.5]), pd.Series([0.7, math.nan, 0.62])
    assert set_target(lowest, starts) == 0.6
    assert math.isnan(set_target(lowest, pd.Series([0.7, 0.6])))


def test_of_a_single_seed_the_interval_is_over_the_examples(tmp_path: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    for path in [folder / "plan.json", *folder.glob("trials/*/trial.json")]:
        path.write_text(
            path.read_text().replace('"movie_reviews"}', '"movie_reviews", "num_dev": 200}')
        )
    (decision,) = decide(load_study([folder]))
    score = decision.group.standings[0].score
    assert score.basis == "examples"
    assert (score.low, score.high) == pytest.approx(wilson_interval(124, 200)[1:])


def test_after_a_screen_the_best_cells_are_confirmed_on_fresh_seeds(tmp_path: Path) -> None:
    study = load(tmp_path, seeds=(0, 1))
    (stage,) = plan_next(study, decide(study))
    assert (stage.kind, stage.arms, stage.seeds, stage.trials) == ("confirm", 2, 5, 10)
    # .25 s of training and, with the evaluations after step 0, 1 + .01 · 144 s at the last row
    assert stage.seconds == pytest.approx(10 * (0.25 * 144 + 1 + 0.01 * 144))
    command = shlex.split(stage.command)
    assert command[:2] == ["python", "sweep.py"]
    assert {"name=simulated_confirm", "phase=confirm", "scheduler=fifo", "~space"} <= set(command)
    assert command[-1] == (
        "+space=[{arm:[mezo,kerzoo_paper],training.perturbation_scale:[0.003],"
        "training.learning_rate:[0.01],training.seed:[2,3,4,5,6]}]"
    )


def test_open_trials_are_finished_first(tmp_path: Path) -> None:
    study = load(tmp_path, fate=lambda v: "planned" if v[LEARNING_RATE] == 0.01 else None)
    (stage,) = plan_next(study, decide(study))
    assert (stage.kind, stage.trials) == ("finish", 4)
    assert stage.seconds == pytest.approx(4 * (0.25 * 144 + 1 + 0.01 * 144))
    assert stage.command == "python sweep.py +sweep=simulated"


def test_a_decided_question_needs_no_further_stage(tmp_path: Path) -> None:
    study = confirm(tmp_path, lead=0.04)
    (stage,) = plan_next(study, decide(study))
    assert (stage.kind, stage.command) == ("none", "")


def test_a_screen_that_was_confirmed_leads_nowhere_any_more(tmp_path: Path) -> None:
    confirm(tmp_path / "confirmed", lead=0.04)
    folders = [SimulatedSweep().write(tmp_path / "screen"), tmp_path / "confirmed" / "simulated"]
    decisions = decide(study := load_study(folders))
    assert [d.state for d in decisions] == ["use", "leads"]
    assert [d.state for d in drop_screened(decisions)] == ["use"]
    assert [stage.kind for stage in plan_next(study, decisions)] == ["elsewhere", "none"]


@pytest.mark.parametrize("fate", ["failed", "diverged"])
def test_a_sweep_without_any_result_is_to_be_mended(tmp_path: Path, fate: str) -> None:
    study = load(tmp_path, fate=lambda v: fate)
    (stage,) = plan_next(study, decide(study))
    assert (stage.kind, stage.command) == ("mend", "python sweep.py +sweep=simulated")


def test_a_card_about_two_tasks_tells_each_setting_and_exports_to_different_folders(
    tmp_path: Path,
) -> None:
    best = {"rte": 0.003, "sst2": 0.01}
    folder = SimulatedSweep(
        arms=("mezo", "kerzoo_paper"),
        epsilons=(0.01,),
        extra={"task": tuple(best)},
        gain=lambda v: 0.1 + 0.1 * (v[LEARNING_RATE] == best[v["task"]]) + 0.1 * is_paper(v),
    ).write(tmp_path)
    name_tasks(folder)
    study = load_study([folder])
    (page,) = describe(study, decide(study), load_language("en"))
    assert page.recommendation
    assert ("Learning rate", "0.003 (rte), 0.01 (sst2)") in page.recommendation.facts
    assert ("ε", "0.01") in page.recommendation.facts
    outs = [shlex.split(command)[-1] for command in page.recommendation.exports]
    assert outs == ["kerzoo_paper_rte_model", "kerzoo_paper_sst2_model"]


def test_a_best_evaluation_before_the_last_is_told_with_where_the_run_ended(
    tmp_path: Path,
) -> None:
    folder = SimulatedSweep(epsilons=(0.01,), learning_rates=(0.01,)).write(tmp_path)
    before = describe_folder(folder)
    assert [row.checkpoint for row in before.rows] == ["", ""]
    assert not any("another cell may lead" in note for note in before.notes)
    assert before.rows[0].setting == "ε 0.01, lr 0.01"
    (path,) = folder.glob("trials/kerzoo_paper-*/records.jsonl")
    *rows, last = [json.loads(line) for line in path.read_text().splitlines()]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, last | {"dev_loss": 0.9}])
    path.write_text(text)
    page = describe_folder(folder)
    paper = next(row for row in page.rows if row.arm == "kerzoo_paper")
    assert paper.checkpoint == "best checkpoint at 72 of 144 passes; ends at 0.9000"
    assert any("the terminal take the last rung" in note for note in page.notes)
    note = best_at_final_rung(load_study([folder]))
    assert note is not None
    assert "best evaluation instead" in note.note


def test_of_several_seeds_the_one_with_the_lowest_checkpoint_is_exported(tmp_path: Path) -> None:
    sweep = SimulatedSweep(epsilons=(0.01,), learning_rates=(0.01,), seeds=(0, 1))
    folder = sweep.write(tmp_path)
    for path in folder.glob("trials/kerzoo_paper-*-1/records.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[1]["dev_loss"], rows[-1]["dev_loss"] = 0.1, 0.9
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = describe_folder(folder).recommendation
    assert card is not None
    assert "--trial kerzoo_paper-0.01-0.01-1 " in card.exports[0]


def describe_folder(folder: Path) -> Overview:
    (page,) = describe(study := load_study([folder]), decide(study), load_language("en"))
    return page


def name_tasks(folder: Path) -> None:
    """Give each trial of a sweep over tasks the task that its overrides name."""
    for path in folder.glob("trials/*/trial.json"):
        trial = json.loads(path.read_text())
        (task,) = [o.removeprefix("task=") for o in trial["overrides"] if o.startswith("task=")]
        trial["config"]["task"]["name"] = trial["choices"]["task"] = task
        path.write_text(json.dumps(trial))


def test_the_first_rows_are_the_baseline_the_choice_and_the_next_best(tmp_path: Path) -> None:
    arms = ("mezo", "a", "b", "c", "d", "e")
    study = load(tmp_path, arms=arms, gain=lambda v: 0.1 + 0.01 * arms.index(v["arm"]))
    (page,) = describe(study, decide(study), load_language("en"))
    assert [row.arm for row in page.rows] == ["mezo", "e", "d", "c", "b", "a"]
    assert [row.is_first for row in page.rows] == [True] * 4 + [False] * 2


def test_what_is_swept_besides_is_confirmed_as_it_was_best(tmp_path: Path) -> None:
    study = load(tmp_path, extra={"bandwidth": ("full", "linear"), "training.note": ("a b",)})
    (stage,) = plan_next(study, decide(study))
    assert "bandwidth:[full],training.note:['a b']" in shlex.split(stage.command)[-1]


def test_the_first_page_says_in_every_language_what_was_found(tmp_path: Path) -> None:
    study = confirm(tmp_path, lead=0.04)
    decisions = decide(study)
    pages = {code: describe(study, decisions, load_language(code))[0] for code in LANGUAGES}
    assert pages["en"].headline == "Take kerzoo_paper."
    assert pages["ja"].headline == "kerzoo_paper の採用を推奨します。"
    for page in pages.values():
        assert page.recommendation
        assert ("ε", "0.01") in page.recommendation.facts
        assert page.recommendation.trains == ["python -m sweeps.trial arm=kerzoo_paper"]
        assert "kerzoo.export results/simulated --trial" in page.recommendation.exports[0]
        assert [row.arm for row in page.rows] == ["mezo", "kerzoo_paper"]
        assert "4.2" in page.reasons[0]
    assert EPSILON not in pages["en"].rows[0].setting
