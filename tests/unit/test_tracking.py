"""W&B as a mirror: what it shows, and that nothing depends on it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st

from kerzoo.records import TrialSpec
from sweeps.plan import Plan, make_plan
from sweeps.schema import TrackingOptions
from sweeps.tracking import trackers
from sweeps.tracking.offline import last_steps, read_history, read_records
from sweeps.tracking.runs import WandbRuns, flatten

WANDB = TrackingOptions(name="wandb", mode="offline", project="kerzoo")


class FakeRun:
    """Keeps what it is told."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.starting_step = 0
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.exit_codes: list[int] = []

    def define_metric(self, *_: Any, **__: Any) -> None:
        pass

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int = 0) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that were started."""
    started: list[FakeRun] = []

    def init(**arguments: Any) -> FakeRun:
        started.append(FakeRun(**arguments))
        return started[-1]

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("sweeps.tracking.runs.check_reachable", lambda: None)
    return started


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    overrides = ["+sweep=quickstart", "model=opt-tiny", f"results_dir={tmp_path}"]
    plan = make_plan(
        [*overrides, "arm=mezo", "training.learning_rate=1e-2"],
        "test",
    )
    plan.create_trials()
    return plan


def append_rows(plan: Plan, spec: TrialSpec, *passes: int) -> None:
    writer = plan.trial_folder(spec.trial_id).begin_attempt()
    for count in passes:
        writer.append_row(
            {
                "trial_id": spec.trial_id,
                "rung": count,
                "step": count // 2,
                "forward_passes": count,
                "dev_loss": 0.7 - count / 1000,
                "train_loss": None,
                "diverged": False,
            }
        )


def runs_of(plan: Plan, told: list[str], options: TrackingOptions = WANDB) -> WandbRuns:
    plan.write()
    return WandbRuns(plan.folder, options, told.append)


def test_nested_values_become_dotted_keys_without_targets() -> None:
    nested = {"a": {"_target_": "kerzoo.X", "b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": None}


LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
KEYS = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
TREES = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda t: st.dictionaries(KEYS, t, min_size=1, max_size=3)),
    min_size=1,
)


@given(TREES)
def test_flattening_loses_no_value_and_keeps_its_path(tree: dict[str, Any]) -> None:
    flat = flatten(tree)
    assert not any(isinstance(value, dict) for value in flat.values())
    rebuilt: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        node = rebuilt
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    assert rebuilt == tree


def test_a_trial_is_one_run_with_its_id_in_the_group_of_its_sweep(
    plan: Plan, runs: list[FakeRun]
) -> None:
    spec, told = plan.specs[0], list[str]()
    tracked = runs_of(plan, told)
    append_rows(plan, spec, 0, 36)
    tracked.update(spec.trial_id)
    tracked.finish()
    (run,) = runs
    assert run.arguments["id"] == spec.trial_id
    assert run.arguments["group"] == "quickstart"
    assert run.arguments["mode"] == "offline"
    assert Path(run.arguments["dir"]) == plan.folder
    assert run.arguments["config"]["training.learning_rate"] == 0.01
    assert run.arguments["config"]["overrides"] == spec.overrides
    assert "mezo" in run.arguments["tags"]
    assert told == []


def test_each_row_is_logged_once_in_the_order_of_its_steps(plan: Plan, runs: list[FakeRun]) -> None:
    spec = plan.specs[0]
    tracked = runs_of(plan, [])
    for passes in (0, 36, 72):
        append_rows(plan, spec, passes)
        tracked.update(spec.trial_id)
        tracked.update(spec.trial_id)
    tracked.finish()
    (run,) = runs
    assert [step for step, _ in run.logged] == [0, 18, 36]
    assert [values["forward_passes"] for _, values in run.logged] == [0, 36, 72]
    assert all("train_loss" not in values for _, values in run.logged)  # null is no number
    assert all("trial_id" not in values for _, values in run.logged)


@pytest.mark.parametrize(
    ("status", "exit_code"), [("finished", 0), ("stopped", 0), ("diverged", 0), ("failed", 1)]
)
def test_a_run_ends_with_its_trial_and_says_how(
    plan: Plan, runs: list[FakeRun], status: str, exit_code: int
) -> None:
    spec = plan.specs[0]
    tracked = runs_of(plan, [])
    append_rows(plan, spec, 0)
    plan.trial_folder(spec.trial_id).update(status=status)
    tracked.update(spec.trial_id)
    tracked.finish()
    (run,) = runs
    assert run.summary["status"] == status
    assert run.exit_codes == [exit_code]


def test_runs_of_trials_that_go_on_later_are_finished_at_the_end(
    plan: Plan, runs: list[FakeRun]
) -> None:
    tracked = runs_of(plan, [])
    for spec in plan.specs:
        append_rows(plan, spec, 0)
        tracked.update(spec.trial_id)
    tracked.finish()
    assert [len(run.exit_codes) for run in runs] == [1] * len(plan.specs)


def test_a_server_that_cannot_be_used_is_said_once_and_runs_go_on_offline(
    plan: Plan, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = wandb.init

    def init(**arguments: Any) -> Any:
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no route to host")
        return works(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    told: list[str] = []
    options = TrackingOptions(name="wandb", mode="online", project="kerzoo")
    tracked = runs_of(plan, told, options)
    for spec in plan.specs:
        append_rows(plan, spec, 0, 36)
        tracked.update(spec.trial_id)
    tracked.finish()
    assert len(told) == 1
    assert "no route to host" in told[0]
    assert [[step for step, _ in run.logged] for run in runs] == [[0, 18]] * len(plan.specs)


def test_online_a_run_goes_on_behind_the_step_that_the_server_has(
    plan: Plan, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = wandb.init

    def init(**arguments: Any) -> Any:
        run = works(**arguments)
        run.starting_step = 19
        return run

    monkeypatch.setattr(wandb, "init", init)
    spec = plan.specs[0]
    append_rows(plan, spec, 0, 36, 72)
    tracked = runs_of(plan, [], TrackingOptions(name="wandb", mode="online", project="kerzoo"))
    tracked.update_all()
    assert [step for step, _ in runs[0].logged] == [36]
    assert runs[0].arguments["resume"] == "allow"


def test_the_summary_has_an_objective_and_the_config_what_rebuilds_a_study(
    plan: Plan, runs: list[FakeRun]
) -> None:
    spec = plan.specs[0]
    append_rows(plan, spec, 0, 36, 72)
    tracked = runs_of(plan, [])
    tracked.update(spec.trial_id)
    (run,) = runs
    assert run.summary["objective"] == pytest.approx(0.628)
    assert run.summary["status"] == "running"
    config = run.arguments["config"]
    assert (config["trial.arm"], config["plan.name"]) == (spec.arm, "quickstart")
    assert config["trial.choices.task"] == spec.choices["task"]
    assert [cell["trial_id"] for cell in config["plan.cells"]] == [spec.trial_id]
    assert config["row.train_loss"] is None


@pytest.mark.parametrize(
    "options",
    [TrackingOptions(name="none", mode="disabled"), TrackingOptions(name="wandb", mode="disabled")],
)
def test_without_tracking_nothing_is_started(plan: Plan, options: TrackingOptions) -> None:
    assert trackers(options, plan.folder) == []


def read_finished_run(path: Path) -> list[Any]:
    """All records, once W&B's own process has written the last one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        records = list(read_records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.2)
    raise AssertionError(f"{path} was not finished")


@pytest.mark.slow
def test_an_offline_run_on_disk_has_id_group_config_and_increasing_steps(plan: Plan) -> None:
    told: list[str] = []
    tracked = runs_of(plan, told)
    for spec in plan.specs:
        append_rows(plan, spec, 0, 36, 72, 144)
        plan.trial_folder(spec.trial_id).update(status="finished")
        tracked.update(spec.trial_id)
    tracked.finish()
    assert told == []
    for spec in plan.specs:
        (path,) = plan.folder.glob(f"wandb/offline-run-*/run-{spec.trial_id}.wandb")
        records = read_finished_run(path)
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.run_group, run.job_type) == (spec.trial_id, "quickstart", "screen")
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config.items() >= flatten(spec.config).items()
        rows = read_history(path)
        assert [row["_step"] for row in rows] == [0, 18, 36, 72]
        assert [row["forward_passes"] for row in rows] == [0, 36, 72, 144]
        assert [row["dev_loss"] for row in rows] == pytest.approx([0.7, 0.664, 0.628, 0.556])
    assert set(last_steps(plan.folder / "wandb").values()) == {72}
