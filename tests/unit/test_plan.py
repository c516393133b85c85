"""The plan: which trials, under which ids, in which order, and which folder they may join."""

from __future__ import annotations

import io
import itertools
import json
import random
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.compose import ConfigError
from sweeps.cost import wall_time_s
from sweeps.plan import Plan, archive, check_same_study, make_plan
from sweeps.progress import format_duration
from sweeps.tables import print_plan

QUICK = ("+sweep=quickstart", "model=opt-tiny")
RATES = "space={training.learning_rate:[1e-2],training.perturbation_scale:[1e-2]}"
ONE = (RATES, "arm=mezo")
"""A plan of a single cell, which composes fast."""


def plan_of(*overrides: str) -> Plan:
    return make_plan([*QUICK, *overrides], "python sweep.py")


def ids_of(plan: Plan) -> list[str]:
    return [spec.trial_id for spec in plan.specs]


def ids_by_cell(plan: Plan) -> dict[str, str]:
    return {json.dumps(c["values"], sort_keys=True): c["trial_id"] for c in plan.content["cells"]}


def printed(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
def test_ids_and_order_are_the_same_in_another_process(project_root: Path) -> None:
    code = (
        "import json, sys; from sweeps.plan import make_plan;"
        "print(json.dumps([s.trial_id for s in make_plan(sys.argv[1:], '').specs]))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, *QUICK],
        cwd=project_root,
        env={"PATH": "", "PYTHONHASHSEED": "99", "HOME": str(project_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(other.stdout) == ids_of(plan_of())


def test_labels_and_circumstances_do_not_change_an_id() -> None:
    plain = plan_of(*ONE)
    other = plan_of(
        *ONE,
        "name=elsewhere",
        "description=words",
        "scheduler=fifo",
        "tracking=none",
        "cluster.num_cpus=1",
        "training.rungs=[0.5,1.0]",
    )
    assert ids_by_cell(other) == ids_by_cell(plain)


@pytest.mark.parametrize(
    "override",
    [
        "training.seed=1",
        "training.forward_passes=288",
        "training.batch_size=8",
        "training.threads=2",
        "training.num_directions=2",
        "tuning.rank=4",
        "task.num_train=300",
        "task.data_seed=1",
        "model.seed=1",
        "model.dtype=bfloat16",
    ],
)
def test_whatever_changes_the_numbers_changes_every_id(override: str) -> None:
    assert not set(ids_of(plan_of(*ONE))) & set(ids_of(plan_of(*ONE, override)))


def test_mezo_at_two_bandwidths_is_one_trial_and_kerzoo_is_two() -> None:
    plan = plan_of(RATES, "+space={arm:[mezo,legendre2],bandwidth:[full,half]}")
    assert len(plan.content["cells"]) == 4
    assert Counter(spec.arm for spec in plan.specs) == {"mezo": 1, "legendre2": 2}


def test_every_cell_names_a_trial_of_the_plan_and_every_trial_has_a_cell() -> None:
    plan = plan_of("+space={arm:[mezo,legendre4,kerzoo_paper],bandwidth:[full,half]}")
    assert {cell["trial_id"] for cell in plan.content["cells"]} == set(ids_of(plan))
    assert [trial["trial_id"] for trial in plan.content["trials"]] == ids_of(plan)
    assert len(set(ids_of(plan))) == len(ids_of(plan))


def test_arms_of_equal_numbers_are_one_trial_and_are_listed_as_aliases() -> None:
    plan = plan_of(RATES, "space={arm:[mezo,legendre4,kerzoo_paper]}")
    assert len(plan.specs) == 2
    assert plan.content["aliases"] == [["kerzoo_paper", "legendre4"]]
    assert "the same up to the learning rate: kerzoo_paper = legendre4" in printed(plan)


def test_the_order_is_shuffled_by_the_plan_seed_and_not_sorted_by_arm() -> None:
    plans = [plan_of(f"search.plan_seed={seed}") for seed in (0, 0, 1)]
    orders = [ids_of(plan) for plan in plans]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != sorted(orders[0])
    arms = [spec.arm for spec in plans[0].specs]
    changes = sum(a != b for a, b in itertools.pairwise(arms))
    assert changes > len(set(arms))


def test_trials_that_make_no_step_come_first_and_leave_the_others_in_their_order() -> None:
    plan = plan_of(RATES, "space.arm=[mezo,zero_shot,legendre2,in_context]")
    arms = [spec.arm for spec in plan.specs]
    assert set(arms[:2]) == {"zero_shot", "in_context"}
    shuffled = sorted(ids_of(plan))
    random.Random(plan.sweep.search.plan_seed).shuffle(shuffled)
    assert [t for t in shuffled if t in ids_of(plan)[2:]] == ids_of(plan)[2:]


def test_a_plan_with_more_cells_keeps_the_ids_of_the_old_ones() -> None:
    few = plan_of(RATES)
    more = plan_of(
        "space={arm:[mezo,legendre2,kerzoo_paper,legendre6],"
        "training.learning_rate:[3e-2,1e-2],training.perturbation_scale:[1e-2]}"
    )
    assert ids_by_cell(few).items() <= ids_by_cell(more).items()
    assert len(more.specs) == 8


def test_an_override_pins_a_swept_key() -> None:
    plan = plan_of("training.learning_rate=1.5e-2")
    assert {spec.config["training"]["learning_rate"] for spec in plan.specs} == {0.015}
    assert ids_by_cell(plan).items() <= ids_by_cell(plan_of()).items()
    assert len(plan.specs) == 6


def test_a_pinned_value_outside_the_list_replaces_it() -> None:
    plan = plan_of("training.learning_rate=5e-4")
    assert {spec.config["training"]["learning_rate"] for spec in plan.specs} == {5e-4}
    assert len(plan.specs) == 6


def test_a_union_of_spaces_keeps_the_members_that_fit_the_command_line() -> None:
    plan = make_plan(["+sweep=opt2.7b", "model=opt-tiny", "tuning=lora", "arm=mezo"], "test")
    assert {spec.choices["tuning"] for spec in plan.specs} == {"lora"}
    assert len(plan.specs) == 3 * 3 * 2
    assert {spec.config["training"]["learning_rate"] for spec in plan.specs} == {5e-5, 1e-4, 3e-4}
    assert plan.content["cost"]["seeds"] == 2
    assert plan.content["cost"]["smallest_detectable_effect"] == pytest.approx(2 * 11.55, abs=0.1)


def test_large_models_are_planned_for_a_gpu() -> None:
    plan = make_plan(["+sweep=opt2.7b", "tuning=lora", "arm=mezo"], "test")
    assert {spec.config["training"]["device"] for spec in plan.specs} == {"cuda"}
    assert plan.content["cost"]["device"] == "cuda"
    assert 4 < plan.content["cost"]["memory_gib_per_trial"] < 20
    assert "GPU" in printed(plan)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_memory_of_a_trial_is_divided_among_its_gpus(tuning: str) -> None:
    overrides = ["model=opt-13b", f"tuning={tuning}"]
    alone = make_plan(overrides, "test", single=True).content["cost"]
    plan = make_plan([*overrides, "cluster.gpus_per_trial=4"], "test", single=True)
    spread = plan.content["cost"]
    assert alone["memory_gib_per_gpu"] == alone["memory_gib_per_trial"]
    assert 0 < spread["memory_gib_per_trial"] - alone["memory_gib_per_trial"] < 4  # processes
    share = spread["memory_gib_per_gpu"] / alone["memory_gib_per_gpu"]
    assert 0.25 < share < 0.35
    assert f"{spread['memory_gib_per_gpu']:.1f} GiB on each of its 4 GPUs" in printed(plan)
    assert "on each of" not in printed(make_plan(overrides, "test", single=True))
    ids = [p.specs[0].trial_id for p in (plan, make_plan(overrides, "test", single=True))]
    assert ids[0] == ids[1]  # the cluster decides no number
    assert plan.specs[0].command.endswith("cluster.gpus_per_trial=4")
    assert "cluster" not in " ".join(plan.specs[0].overrides)


def test_several_gpus_for_trials_on_a_cpu_say_nothing() -> None:
    assert plan_of(*ONE, "training.device=cpu", "cluster.gpus_per_trial=2").specs


@pytest.mark.parametrize("number", [0.5, 1])
def test_a_part_of_a_gpu_or_one_is_planned(number: float) -> None:
    overrides = ["model=opt-13b", f"cluster.gpus_per_trial={number}"]
    assert make_plan(overrides, "test", single=True).specs


def test_one_and_a_half_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.gpus_per_trial must be whole above 1, got 1"):
        make_plan(["cluster.gpus_per_trial=1.5"], "test", single=True)


def test_an_empty_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space\.arm: must be a list with at least one value"):
        plan_of("space.arm=[]", f"results_dir={tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_planning_writes_nothing_and_writing_leaves_the_documented_files(tmp_path: Path) -> None:
    plan = plan_of(*ONE, f"results_dir={tmp_path}")
    assert list(tmp_path.iterdir()) == []
    plan.write()
    plan.create_trials()
    assert plan.folder == tmp_path / "quickstart"
    content = json.loads((plan.folder / "plan.json").read_text())
    assert content["trials"] == json.loads(json.dumps(plan.content["trials"]))
    assert content["rungs"] == [36, 72, 144]
    assert content["baseline"] == "mezo"
    assert content["factors"][0] == "arm"
    assert {p.name for p in (plan.folder / "trials").iterdir()} == set(ids_of(plan))
    for spec in plan.specs:
        trial = plan.trial_folder(spec.trial_id).read()
        assert trial["status"] == "planned"
        assert trial["config"] == spec.config
        assert shlex.split(trial["command"]) == ["python", "-m", "sweeps.trial", *spec.overrides]


def test_creating_trials_again_leaves_their_status_alone(tmp_path: Path) -> None:
    plan = plan_of(*ONE, f"results_dir={tmp_path}")
    plan.create_trials()
    folder = plan.trial_folder(ids_of(plan)[0])
    folder.update(status="failed")
    plan.create_trials()
    assert folder.status == "failed"


OTHER_STUDIES = {
    "another model": (["model=smollm2-135m"], "model"),
    "the model at another seed": (["model.seed=1"], "model revision"),
    "another task": (["task=sst2"], "task"),
    "another budget": (["training.forward_passes=288"], "training.forward_passes"),
    "other rungs": (["training.rungs=[0.5,1.0]"], "training.rungs"),
}


def start(plan: Plan) -> None:
    """Leave what a sweep has left after its first row."""
    plan.write()
    plan.create_trials()
    plan.trial_folder(plan.specs[0].trial_id).records_path.write_text("{}\n")


@pytest.fixture(scope="module")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    start(plan_of(*ONE, f"results_dir={results}"))
    return results


@pytest.mark.parametrize("kind", OTHER_STUDIES)
def test_another_study_in_the_same_folder_is_refused_naming_the_difference(
    kind: str, finished_study: Path
) -> None:
    overrides, named = OTHER_STUDIES[kind]
    plan = plan_of(*ONE, f"results_dir={finished_study}", *overrides)
    with pytest.raises(ConfigError) as refused:
        check_same_study(plan)
    message = str(refused.value)
    assert str(finished_study / "quickstart") in message
    assert named in message
    assert "name=" in message
    assert "fresh=true" in message


def write_sentences(folder: Path, tail: str) -> None:
    folder.mkdir()
    for name in ("train", "dev"):
        lines = [f"{i % 2} sentence {i} of {name} {tail}\n" for i in range(8)]
        (folder / f"stsa.binary.{name}").write_text("".join(lines))


def test_other_data_in_the_same_folder_are_refused_and_a_copy_of_the_data_is_not(
    tmp_path: Path,
) -> None:
    for name, tail in (("one", "a"), ("copy", "a"), ("other", "b")):
        write_sentences(tmp_path / name, tail)
    plans = {
        name: plan_of(
            *ONE, "task=sst2", f"task.data_dir={tmp_path / name}", f"results_dir={tmp_path}"
        )
        for name in ("one", "copy", "other")
    }
    plans["one"].write()
    check_same_study(plans["other"])  # nothing was recorded yet
    start(plans["one"])
    check_same_study(plans["copy"])
    assert ids_of(plans["copy"]) == ids_of(plans["one"])
    with pytest.raises(ConfigError, match="data was"):
        check_same_study(plans["other"])


@pytest.mark.parametrize(
    "override",
    ["training.seed=3", "+space={tuning:[full]}", "training.learning_rate=1", "scheduler=fifo"],
)
def test_other_cells_may_join_the_same_folder(override: str, finished_study: Path) -> None:
    check_same_study(plan_of(*ONE, f"results_dir={finished_study}", override))


def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    plan = plan_of(*ONE, f"results_dir={tmp_path}")
    plan.folder.mkdir()
    for text in ("{", "{}"):
        (plan.folder / "plan.json").write_text(text)
        with pytest.raises(ConfigError, match="not a plan of this version"):
            check_same_study(plan)


def test_archiving_moves_the_whole_folder_aside(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert archive(folder) is None
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    moved = archive(folder)
    assert moved is not None
    assert not folder.exists()
    assert moved.parent == tmp_path
    assert (moved / "plan.json").exists()
    assert moved.name.startswith("study.archived-")


def test_the_printed_plan_says_what_runs_what_it_costs_and_what_it_can_detect() -> None:
    plan = plan_of("plan_only=true", "cluster.num_cpus=2")
    text = printed(plan)
    wall = format_duration(wall_time_s(plan.content["cost"], 2))
    for part in (
        "quickstart",
        "12 cells, 12 trials, at most 144 forward passes each, evaluated at 36, 72, 144",
        "1,728 forward passes in all",
        "GiB a trial",
        "device cpu",
        "time of one CPU slot in all",
        f"{wall} by the clock on the 2 slots of this machine (estimated from 6.0e+10 FLOP/s",
        "smallest detectable effect: none (one seed a cell",
        "training.learning_rate: 0.005, 0.015",
        *ids_of(plan),
    ):
        assert part in text, part


def test_the_printed_plan_of_a_run_leaves_the_list_of_cells_out() -> None:
    plan = plan_of(RATES)
    assert not any(trial in printed(plan) for trial in ids_of(plan))


def test_one_trial_alone_needs_no_space() -> None:
    plan = make_plan(["model=opt-tiny", "arm=legendre2"], "test", single=True)
    assert [spec.arm for spec in plan.specs] == ["legendre2"]
    swept = plan_of(RATES, "arm=legendre2", "baseline=legendre2")
    single = make_plan([*QUICK, *swept.specs[0].overrides[2:]], "test", single=True)
    assert ids_of(single) == ids_of(swept)
