"""`python -m kerzoo.export` as a command: what it refuses, prints, ends with and imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_trials import planned, recorded
from tiny_trials import created, trial_config, write_sst2

from kerzoo import METHOD_VERSION
from kerzoo.export import export, find_checkpoint, main

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def results(sst2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished LoRA trial."""
    folder = tmp_path_factory.mktemp("results")
    recorded(trial_config(sst2, learning_rate=0.1), folder)
    return folder


def refused(results: Path, *arguments: str | Path) -> int:
    return main([str(results), *map(str, arguments)])


def test_a_folder_that_holds_something_is_left_as_it_is(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        assert refused(results, "--out", out) == 2
        assert f"error: --out {out}: must be new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(results: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert refused(results, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "adapter_config.json").exists()


def test_what_is_not_there_is_refused_by_name(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    trial = find_checkpoint(results).row["trial_id"]
    for arguments, message in (
        (
            [results, "--trial", "nobody"],
            f"{results}: no trial nobody here; --trial is one of {trial}",
        ),
        ([tmp_path / "nowhere"], f"{tmp_path / 'nowhere'}: no trial here; name a results folder"),
        ([results, "--step", "5"], "--step 5: not evaluated; these were: [0, 3, 6, 12]"),
    ):
        assert refused(*arguments, "--out", out) == 2
        assert f"error: {message}" in capsys.readouterr().err
    assert not out.exists()


def test_a_trial_without_an_evaluation_after_an_update_has_nothing_to_export(
    sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    created(tmp_path / "trials", planned(trial_config(sst2)))
    assert refused(tmp_path, "--out", tmp_path / "out") == 2
    recorded(trial_config(sst2), tmp_path, num_rows=1)
    assert refused(tmp_path, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.count("nothing was evaluated after an update yet") == 2


def test_a_diverged_evaluation_is_never_chosen(sst2: Path, tmp_path: Path) -> None:
    trial = recorded(trial_config(sst2, learning_rate=1e30), tmp_path)
    assert trial.status == "diverged"
    with pytest.raises(ValueError, match="nothing was evaluated after an update"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("version", [METHOD_VERSION - 1, METHOD_VERSION + 1, None])
def test_a_trial_of_another_version_of_the_method_is_refused(
    sst2: Path, tmp_path: Path, version: int | None
) -> None:
    trial = recorded(trial_config(sst2), tmp_path)
    content = trial.read() | {"method_version": version}
    if version is None:
        del content["method_version"]  # as trials of the first version have it
    (trial.path / "trial.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"and this is {METHOD_VERSION}, which would replay"):
        export(find_checkpoint(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lost", [1, 60])
def test_a_log_that_lost_its_end_exports_the_steps_that_it_has_and_no_others(
    sst2: Path, tmp_path: Path, lost: int
) -> None:
    trial = recorded(trial_config(sst2, learning_rate=0.1), tmp_path)
    path = trial.trajectory_path
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ValueError, match=r"trajectory.msgpack: has 1[01] whole steps, and 12 are"):
        export(find_checkpoint(tmp_path, step=12), tmp_path / "out")
    export(find_checkpoint(tmp_path, step=6), tmp_path / "out")


def test_data_that_changed_since_are_noticed(tmp_path: Path) -> None:
    data = write_sst2(tmp_path / "data")
    recorded(trial_config(data), tmp_path)
    with (data / "stsa.binary.train").open("a") as file:
        file.write("1 one more\n")
    with pytest.raises(ValueError, match="its model or data have changed since it ran"):
        export(find_checkpoint(tmp_path), tmp_path / "out")


def test_a_model_that_changed_since_is_noticed(sst2: Path, tmp_path: Path) -> None:
    trial = recorded(trial_config(sst2), tmp_path)
    content = trial.read()
    content["config"]["model"]["seed"] = 1
    (trial.path / "trial.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="its model or data have changed since it ran"):
        export(find_checkpoint(tmp_path), tmp_path / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is meant")
def test_a_trial_of_a_gpu_is_refused_where_there_is_none(sst2: Path, tmp_path: Path) -> None:
    trial = recorded(trial_config(sst2), tmp_path)
    content = trial.read()
    content["config"]["training"]["device"] = "cuda"
    (trial.path / "trial.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="there is no GPU here"):
        export(find_checkpoint(tmp_path), tmp_path / "out")


def test_the_command_says_what_it_wrote_and_how_to_load_it(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = find_checkpoint(results).row
    assert main([str(results), "--out", str(tmp_path / "a")]) == 0
    about, holds = capsys.readouterr().out.splitlines()
    assert about == (
        f"{tmp_path / 'a'}: trial {row['trial_id']} ({row['arm']}) after {row['step']} steps, "
        f"dev loss {row['dev_loss']:.4f}, accuracy {row['dev_accuracy']:.3f}"
    )
    assert holds.startswith("It holds adapters of a model that was made from a config")
    assert "--merge writes a whole model instead" in holds
    assert main([str(results), "--out", str(tmp_path / "b"), "--merge"]) == 0
    assert f"from_pretrained('{tmp_path / 'b'}')" in capsys.readouterr().out


def test_an_interrupt_ends_with_130_and_leaves_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("peft.PeftModel.save_pretrained", interrupt)
    assert main([str(results), "--out", str(tmp_path / "out")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_help_teaches_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("lowest dev loss", "AutoPeftModelForCausalLM.from_pretrained(DIR", "--merge"):
        assert part in text
    assert "Exit codes: 0 done; 2 something is wrong, and nothing was written; 130" in text


def test_a_missing_out_ends_with_2(results: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(results)])
    assert ended.value.code == 2


@pytest.mark.slow  # a process imports transformers
def test_the_command_imports_neither_hydra_nor_ray(results: Path, tmp_path: Path) -> None:
    program = (
        "import runpy, sys; sys.argv = ['export', *sys.argv[1:]]\n"
        "try: runpy.run_module('kerzoo.export', run_name='__main__')\n"
        "except SystemExit as ended: code = ended.code\n"
        "print(code, sorted({'ray', 'hydra', 'omegaconf', 'wandb', 'pandas', 'matplotlib',"
        " 'sweeps', 'analysis'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(results), "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.stdout.splitlines()[-1:] == ["0 []"], answer.stderr
