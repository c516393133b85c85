from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from records_factory import EPSILON, LEARNING_RATE, START, SimulatedSweep, write_trial

from analysis.load import Study, load_study
from analysis.sources import ResultsError
from kerzoo.records import write_json


def load(root: Path, sweep: SimulatedSweep) -> Study:
    return load_study([sweep.write(root)])


def records_of(folder: Path) -> list[Path]:
    return sorted((folder / "trials").glob("*/records.jsonl"))


def test_changes_are_measured_from_the_trials_own_step_0(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep())
    last = study.evaluations[study.evaluations["rung"] == 144]
    mezo = last[(last["arm"] == "mezo") & (last["learning_rate"] == 0.01)].iloc[0]
    assert mezo["dev_loss"] == pytest.approx(START - 0.12)
    assert mezo["dev_loss_change"] == pytest.approx(-0.12)
    assert mezo["score_change"] == pytest.approx(0.12)


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_torn_last_line_is_left_out_and_told_of_where_the_trial_had_ended(
    tmp_path: Path, status: str
) -> None:
    folder = SimulatedSweep().write(tmp_path)
    path = records_of(folder)[0]
    path.write_text(path.read_text()[:-20])
    trial = json.loads((path.parent / "trial.json").read_text())
    write_json(path.parent / "trial.json", trial | {"status": status})
    study = load_study([folder])
    assert len(study.last_rows) == 8
    assert len(study.evaluations) == 8 * 4 - 1
    shown = study.trials.set_index("trial_id")["status"]
    if status == "running":
        assert not study.warnings
        assert shown[path.parent.name] == "running"
    else:
        (warning,) = study.warnings
        assert f"lack rows of their records: {path.parent.name}." in warning
        assert shown[path.parent.name] == "interrupted"


def test_a_damaged_line_in_the_middle_is_reported(tmp_path: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    path = records_of(folder)[0]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:30], *lines[2:], ""]))
    study = load_study([folder])
    assert len(study.evaluations) == 8 * 4 - 1
    assert "line 2" in study.warnings[0]


def test_of_a_repeated_step_the_last_row_counts_and_a_warning_is_given(tmp_path: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    path = records_of(folder)[0]
    last = {**json.loads(path.read_text().splitlines()[-1]), "dev_loss": 0.25}
    with path.open("a") as file:
        file.write(json.dumps(last) + "\n")
    study = load_study([folder])
    assert len(study.evaluations) == 8 * 4
    assert study.last_rows["dev_loss"].min() == 0.25
    assert "repeat a step" in study.warnings[0]


def test_cells_that_share_a_trial_are_expanded_to_each_arm(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep(aliases={"kerzoo_four": "kerzoo_paper"}))
    assert len(study.trials) == 8
    assert len(study.cells) == 12
    shared = study.evaluations[study.evaluations["arm"] == "kerzoo_four"]
    own = study.evaluations[study.evaluations["arm"] == "kerzoo_paper"]
    pd.testing.assert_series_equal(
        shared["dev_loss"].reset_index(drop=True), own["dev_loss"].reset_index(drop=True)
    )
    assert set(shared["shared_with"]) == {"kerzoo_paper"}


def test_trials_outside_the_plan_are_kept_but_compared_with_nothing(tmp_path: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    stray = {"trial_id": "stray", "arm": "mezo", "status": "finished", "config": {}}
    row = {"trial_id": "stray", "step": 0, "rung": 0, "dev_loss": 0.01, "forward_passes": 0}
    write_trial(folder, stray, [row])
    study = load_study([folder])
    assert list(study.trials.loc[~study.trials["planned"], "trial_id"]) == ["stray"]
    assert "stray" not in set(study.evaluations["trial_id"])


def test_a_diverged_evaluation_has_no_outcome(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep(fate=lambda values: "diverged"))
    lost = study.evaluations[study.evaluations["diverged"]]
    assert len(lost) == 8
    assert lost["dev_loss"].isna().all()


def test_seeds_of_a_cell_share_a_setting(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep(seeds=(1, 2, 3)))
    assert study.seeds_per_cell == 3
    assert study.cells["setting"].nunique() == 8


def test_other_factors_tell_settings_apart(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep(extra={"training.batch_size": (8, 16)}))
    assert study.cells["setting"].nunique() == 16
    assert set(study.cells["extra"]) == {"batch_size 8", "batch_size 16"}


def test_f1_stands_in_where_there_is_no_accuracy(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep(metric="dev_f1", is_binary=False))
    assert study.score_name == "F1"
    assert study.evaluations["score"].notna().all()
    assert study.evaluations["dev_auc"].isna().all()


def test_several_folders_are_kept_apart(tmp_path: Path) -> None:
    folders = [SimulatedSweep(name=name, model=name).write(tmp_path) for name in ("one", "two")]
    study = load_study(folders)
    assert study.contexts == ["one · one", "two · two"]
    assert study.cells["setting"].nunique() == 16


def test_the_baseline_comes_first(tmp_path: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "baseline": "kerzoo_paper"}))
    assert load_study([folder]).arms == ["kerzoo_paper", "mezo"]


def test_a_missing_folder_is_refused_with_its_neighbours(tmp_path: Path) -> None:
    SimulatedSweep(name="there").write(tmp_path)
    with pytest.raises(ResultsError, match=r"no such results folder: .*gone; .*there"):
        load_study([tmp_path / "gone"])


def test_a_folder_without_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no plan\.json"):
        load_study([tmp_path])


def test_a_plan_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ResultsError, match="not readable as JSON"):
        load_study([tmp_path])


def test_a_sweep_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no records yet"):
        load(tmp_path, SimulatedSweep(fate=lambda values: "planned"))


def test_a_sweep_in_which_all_failed_is_read(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep(fate=lambda values: "failed"))
    assert len(study.evaluations) == 0
    assert set(study.trials["failure_kind"]) == {"OutOfMemory"}


def test_cell_values_have_precedence_over_the_trials_configuration(tmp_path: Path) -> None:
    study = load(tmp_path, SimulatedSweep())
    for cell in study.sweeps[0].plan["cells"]:
        row = study.cells[study.cells["trial_id"] == cell["trial_id"]].iloc[0]
        assert row["perturbation_scale"] == cell["values"][EPSILON]
        assert row["learning_rate"] == cell["values"][LEARNING_RATE]
