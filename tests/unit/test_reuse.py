"""Finished trials of other sweeps: which are taken over, and what becomes of them."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from kerzoo.records import TrialFolder
from kerzoo.trajectory import StepRecord
from sweeps.compose import ConfigError
from sweeps.events import read_events
from sweeps.plan import Plan, make_plan
from sweeps.reuse import find_reusable, take_over
from sweeps.tables import print_plan

RATES = "space.training.learning_rate=[1e-2]"


def plan_of(results: Path, name: str, *overrides: str) -> Plan:
    quick = ("+sweep=quickstart", "model=opt-tiny", RATES, "space.arm=[mezo,legendre2]")
    return make_plan([*quick, f"results_dir={results}", f"name={name}", *overrides], "")


def finish(plan: Plan, folder: TrialFolder) -> None:
    """Leave what a finished trial leaves, with a checkpoint beside its records."""
    rungs = folder.read()["rungs"]
    rows = [{"rung": rung, "step": rung // 2, "diverged": False} for rung in (0, *rungs)]
    folder.records_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [StepRecord(i, (1.0, 1.0), 3, 0.1, 0.1) for i in range(rungs[-1] // 2)]
    folder.trajectory_path.write_bytes(b"".join(step.pack() for step in steps))
    (folder.path / "checkpoint.safetensors").write_bytes(b"weights")
    folder.update(status="finished", attempts=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four finished trials."""
    root = tmp_path_factory.mktemp("results")
    plan = plan_of(root, "earlier")
    plan.write()
    plan.create_trials()
    for spec in plan.specs:
        finish(plan, plan.trial_folder(spec.trial_id))
    return root


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    shutil.copytree(results / "earlier", tmp_path / "earlier")
    return tmp_path


def test_finished_trials_are_taken_over_with_a_word_on_where_from(copied: Path) -> None:
    plan = plan_of(copied, "later", "reuse=auto", "+space={training.seed:[0,1]}")
    before = {p: p.read_bytes() for p in (copied / "earlier").rglob("*") if p.is_file()}
    assert take_over(plan) == 4
    plan.create_trials()
    statuses = {spec.trial_id: plan.trial_folder(spec.trial_id).status for spec in plan.specs}
    assert sorted(statuses.values()) == ["finished"] * 4 + ["planned"] * 4
    for trial, status in statuses.items():
        content = plan.trial_folder(trial).read()
        if status == "finished":
            assert content["reused_from"] == f"../earlier/trials/{trial}"
            assert content["attempts"] == 2
            assert content["overrides"] == next(
                spec.overrides for spec in plan.specs if spec.trial_id == trial
            )
            own, other = (copied / n / "trials" / trial for n in ("later", "earlier"))
            for name in ("records.jsonl", "trajectory.msgpack"):
                assert (own / name).read_bytes() == (other / name).read_bytes()
                assert not os.path.samefile(own / name, other / name)
            weights = "checkpoint.safetensors"
            assert os.path.samefile(own / weights, other / weights)
    assert {p: p.read_bytes() for p in before} == before
    assert len(read_events(plan.folder / "events.jsonl", "reused")) == 4
    assert take_over(plan) == 0
    assert not list((plan.folder / "trials").glob(".reusing*"))


def test_nothing_is_taken_over_unless_it_is_asked_for(results: Path) -> None:
    assert find_reusable(plan_of(results, "later")) == {}


@pytest.mark.parametrize("reuse", ["auto", "{}", "{}/earlier", "[{}/earlier]"])
def test_a_store_is_a_results_folder_or_a_folder_of_them(reuse: str, results: Path) -> None:
    plan = plan_of(results, "later", f"reuse={reuse.format(results)}")
    assert find_reusable(plan).keys() == {spec.trial_id for spec in plan.specs}


def test_a_store_that_does_not_exist_is_refused(results: Path) -> None:
    with pytest.raises(ConfigError, match="reuse: no such folder: /nowhere"):
        find_reusable(plan_of(results, "later", "reuse=/nowhere"))
    with pytest.raises(ConfigError, match="reuse must be auto, a folder or a list of them, got 3"):
        plan_of(results, "later", "reuse=3")


def cut_rows(folder: TrialFolder) -> None:
    folder.records_path.write_bytes(folder.records_path.read_bytes()[:-3])


def cut_steps(folder: TrialFolder) -> None:
    folder.trajectory_path.write_bytes(folder.trajectory_path.read_bytes()[:-60])


DAMAGES: dict[str, Callable[[TrialFolder], object]] = {
    "a torn row": cut_rows,
    "missing steps": cut_steps,
    "no records": lambda folder: folder.records_path.unlink(),
    "no trial.json": lambda folder: (folder.path / "trial.json").unlink(),
    "a torn trial.json": lambda folder: (folder.path / "trial.json").write_text("{"),
    "running": lambda folder: folder.update(status="running"),
    "stopped": lambda folder: folder.update(status="stopped"),
    "failed": lambda folder: folder.update(status="failed"),
    "another phase": lambda folder: folder.update(phase="confirm"),
    "other rungs": lambda folder: folder.update(rungs=[72, 144]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_trial_that_is_not_whole_or_not_the_same_is_left_alone(damage: str, copied: Path) -> None:
    plan = plan_of(copied, "later", "reuse=auto")
    spoilt = plan.specs[0].trial_id
    DAMAGES[damage](TrialFolder(copied / "earlier" / "trials" / spoilt))
    assert find_reusable(plan).keys() == {s.trial_id for s in plan.specs} - {spoilt}


def test_what_the_folder_holds_itself_is_never_replaced(copied: Path) -> None:
    plan = plan_of(copied, "later", "reuse=auto")
    plan.create_trials()
    first, second = (plan.trial_folder(spec.trial_id) for spec in plan.specs[:2])
    first.update(status="interrupted")
    assert find_reusable(plan).keys() == {s.trial_id for s in plan.specs[1:]}
    take_over(plan)
    assert (first.status, second.status) == ("interrupted", "finished")


def test_archived_results_are_not_looked_into_unless_named(copied: Path) -> None:
    (copied / "earlier").rename(copied / "later.archived-2026")
    plan = plan_of(copied, "later", "reuse=auto", "fresh=true")
    assert find_reusable(plan) == {}
    named = plan_of(copied, "later", f"reuse={copied / 'later.archived-2026'}")
    assert len(find_reusable(named)) == 4


def test_the_printed_plan_says_how_many_are_reused(results: Path) -> None:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_plan(plan_of(results, "later", "reuse=auto"), console)
    assert isinstance(console.file, io.StringIO)
    assert "4 trials reused: 4 from " in console.file.getvalue()
