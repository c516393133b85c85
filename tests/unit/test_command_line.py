"""sweep.py as a function: exit codes that need no sweep to run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import sweep
from kerzoo.records import write_json
from sweeps.ledger import Spent

QUICK = ["+sweep=quickstart", "model=opt-tiny", "arm=mezo", "training.learning_rate=1e-2"]


@pytest.fixture(autouse=True)
def _leave_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def never(*_: Any, **__: Any) -> Any:
    pytest.fail("something was started")


def test_an_interrupt_while_planning_ends_with_130_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "make_plan", interrupt)
    assert sweep.main(QUICK) == 130
    assert "The same command continues." in capsys.readouterr().out


def test_planning_only_starts_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "execute", never)
    assert sweep.main([*QUICK, f"results_dir={tmp_path}", "plan_only=true"]) == 0
    assert "2 cells, 2 trials" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_start_is_refused_while_another_sweep_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "run_phases", never)
    folder = tmp_path / "quickstart"
    folder.mkdir()
    (folder / "notes.txt").write_text("of the sweep that runs")
    with sweep.only_driver(folder):
        for fresh in ("true", "false"):
            assert sweep.main([*QUICK, f"results_dir={tmp_path}", f"fresh={fresh}"]) == 2
            assert "another sweep is running there" in capsys.readouterr().err
    assert (folder / "notes.txt").exists()
    assert not (folder / "plan.json").exists()


def test_a_sweep_that_cannot_be_prepared_leaves_no_trial_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.runner.prepare", lambda plan, console: 2)
    assert sweep.main([*QUICK, f"results_dir={tmp_path}"]) == 2
    assert not (tmp_path / "quickstart" / "trials").exists()


def test_a_spent_budget_starts_nothing_and_the_last_line_says_what_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sweeps.runner.prepare", never)
    folder = tmp_path / "quickstart"
    folder.mkdir()
    run = vars(Spent(wall_time_s=58.9))
    write_json(folder / "run.json", {"total": run, "runs": [run]})
    command = [*QUICK, f"results_dir={tmp_path}", "budget.wall_time_s=50"]
    assert sweep.main(command) == 130
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Stopped: budget.wall_time_s: 58.9 of 50 is spent, over 1 run; the same command with "
        "budget.wall_time_s=100 goes on."
    )


def test_a_gpu_that_is_missing_is_said_before_old_results_are_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sweep, "run_phases", never)
    (tmp_path / "quickstart").mkdir()
    command = [*QUICK, f"results_dir={tmp_path}", "fresh=true", "training.device=cuda"]
    assert sweep.main(command) == 2
    assert "training.device=cpu, or cluster=auto" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart"]


def test_the_driver_of_a_sweep_that_died_left_no_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with sweep.only_driver(tmp_path):
            assert (tmp_path / ".driver.lock").exists()
