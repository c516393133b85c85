"""Every arm at work on opt-tiny, and what each setting of the released code does to its steps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_trajectories import zeroth_order_arms
from recorded_trials import planned
from tiny_trials import created, numbers

from kerzoo.attempt import run_trial
from kerzoo.batches import BatchSampler
from kerzoo.estimator import Estimator
from kerzoo.identity import signature
from kerzoo.losses import LabelWordLoss
from kerzoo.noise import compiled
from kerzoo.options import TrialOptions
from kerzoo.records import TrialFolder
from kerzoo.trajectory import StepRecord, read_trajectory
from kerzoo.weights import MasterWeights
from kerzoo.workspace import Workspace
from sweeps.compose import compose
from sweeps.plan import make_plan

ARMS = zeroth_order_arms()
BUDGET = 24
"""Forward passes: 4 steps of kerzoo_code, 12 of most arms."""

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return Workspace()


def settings(data: Path, *overrides: str) -> list[str]:
    """Overrides of a trial that takes milliseconds a step."""
    return [
        "model=opt-tiny",
        "model.num_layers=2",
        "task=sst2",
        f"task.data_dir={data}",
        "task.num_train=60",
        "task.num_dev=20",
        "task.num_test=0",
        "task.max_length=32",
        "training.batch_size=4",
        "training.learning_rate=1e-3",
        "training.perturbation_scale=2e-2",
        "training.rungs=[0.5,1]",
        f"training.forward_passes={BUDGET}",
        "training.device=cpu",
        *overrides,
    ]


def config_of(data: Path, *overrides: str) -> dict[str, Any]:
    return compose(settings(data, *overrides)).trial_config({})


def interrupt_after(steps: int, what: str, done: int, total: int) -> None:
    if what == "training" and done == steps:
        raise KeyboardInterrupt


def run(config: dict[str, Any], folder: Path, workspace: Workspace, stop: int = -1) -> TrialFolder:
    """Run a trial, to its end or until it has made some steps."""
    spec = planned(config)
    trial = created(folder, spec)
    try:
        for _ in run_trial(spec, trial, workspace, functools.partial(interrupt_after, stop)):
            pass
    except KeyboardInterrupt:
        assert stop > 0
    return trial


def steps_of(trial: TrialFolder) -> list[StepRecord]:
    return read_trajectory(trial.trajectory_path)


def losses_of(trial: TrialFolder) -> tuple[tuple[float, ...], ...]:
    return tuple(record.losses for record in steps_of(trial))


@pytest.fixture(scope="module")
def trials(
    sst2: Path, tmp_path_factory: pytest.TempPathFactory, workspace: Workspace
) -> dict[str, TrialFolder]:
    """A finished trial of each arm, all of one seed."""
    folder = tmp_path_factory.mktemp("arms")
    torch.set_num_threads(1)
    return {arm: run(config_of(sst2, f"arm={arm}"), folder / arm, workspace) for arm in ARMS}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_runs_its_budget_and_moves_the_loss(
    trials: dict[str, TrialFolder], arm: str
) -> None:
    trial = trials[arm]
    per_step = TrialOptions.from_config(trial.read()["config"]).forward_passes_per_step
    assert trial.status == "finished"
    assert len(steps_of(trial)) == BUDGET // per_step
    assert all(len(losses) == per_step for losses in losses_of(trial))
    first, *_, last = trial.rows()
    assert last["forward_passes"] == BUDGET // per_step * per_step
    assert last["dev_loss"] != first["dev_loss"]


@pytest.mark.slow  # plans every arm
def test_the_arms_that_take_the_same_steps_are_those_that_a_plan_lists_as_aliases(
    sst2: Path, tmp_path: Path, trials: dict[str, TrialFolder]
) -> None:
    space = f"space={{arm:[{','.join(ARMS)}]}}"
    overrides = [
        "+sweep=quickstart",
        *settings(sst2, "tuning=lora"),
        f"results_dir={tmp_path}",
        space,
    ]
    plan = make_plan(overrides, "python sweep.py")
    alike: dict[Any, list[str]] = {}
    for arm in ARMS:
        alike.setdefault(losses_of(trials[arm]), []).append(arm)
    assert [arms for arms in alike.values() if len(arms) > 1] == plan.content["aliases"]
    assert plan.content["aliases"] == [["kerzoo_paper", "legendre4"]]
    assert {trial.path.name for trial in trials.values()} == {s.trial_id for s in plan.specs}


def test_arms_of_one_seed_share_their_batches_and_their_directions(
    sst2: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are used: the batch of every forward pass and the key of every perturbation."""
    batches: list[tuple[int, ...]] = []
    keys: list[int] = []
    loss, perturb = LabelWordLoss.loss, MasterWeights.perturb_

    def watch_loss(self: LabelWordLoss, indices: list[int]) -> float:
        batches.append(tuple(indices))
        return loss(self, indices)

    def watch_perturb(self: MasterWeights, key: int, scales: tuple[float, ...]) -> None:
        keys.append(key)
        perturb(self, key, scales)

    monkeypatch.setattr(LabelWordLoss, "loss", watch_loss)
    monkeypatch.setattr(MasterWeights, "perturb_", watch_perturb)
    sampler = BatchSampler(60, 4, 0)
    directions: dict[tuple[int, int], set[int]] = {}
    for arm in ARMS:
        batches.clear()
        keys.clear()
        config = config_of(sst2, f"arm={arm}")
        options = TrialOptions.from_config(config)
        per_step = options.forward_passes_per_step
        run(config, tmp_path / arm, workspace, stop=3)
        assert batches == [tuple(sampler.indices(i // per_step)) for i in range(3 * per_step)]
        per_direction = per_step // options.training.num_directions
        for number, key in enumerate(keys):
            step, rest = divmod(number, per_step)
            directions.setdefault((step, rest // per_direction), set()).add(key)
    assert sorted(directions) == list(itertools.product(range(3), range(3)))
    assert all(len(found) == 1 for found in directions.values())
    assert len(set.union(*directions.values())) == 9


RELEASED = (
    "arm=kerzoo_code",
    "clipping.bound=40",  # the released 4e5 binds on no tensor of opt-tiny
    "bandwidth.schedule.floor=0.6",  # the released 1e-4 binds after thousands of steps
)
OTHERWISE = {
    "rescaled": ("bandwidth.rescale=true",),
    "interval_that_stays": ("bandwidth=full", "bandwidth.rescale=false"),
    "one_r_for_all_tensors": ("training.r_scope=step",),
    "one_direction": ("training.num_directions=1", "training.forward_passes=8"),
    "no_clipping": ("clipping=none",),
    "low_floor": ("bandwidth.schedule.floor=1e-4",),
    "first_moment_1": ("kernel=legendre4",),
    "coupled_copy": ("momentum=coupled_copy",),
    "linear_kernel": ("kernel=legendre2",),
}


def released(data: Path, *changes: str) -> dict[str, Any]:
    """kerzoo_code with bounds that bind within four steps, and something changed in it."""
    group = {change.partition("=")[0] for change in changes if "." not in change.partition("=")[0]}
    kept = [part for part in RELEASED if part.partition(".")[0] not in group]
    return config_of(data, *kept, *changes)


@pytest.mark.slow  # ten trials
def test_each_setting_of_the_released_code_changes_its_steps(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    variants = {"released": (), **OTHERWISE}
    found: dict[Any, str] = {}
    for name, changes in variants.items():
        trial = run(released(sst2, *changes), tmp_path / name, workspace)
        assert len(steps_of(trial)) == 4
        first_direction = tuple(losses[:2] for losses in losses_of(trial))
        assert first_direction not in found, f"{name} takes the steps of {found[first_direction]}"
        found[first_direction] = name


def test_the_released_clipping_binds_on_some_tensors_and_not_on_others(sst2: Path) -> None:
    """Else the test above would not tell the length of a step from its sign."""
    options = TrialOptions.from_config(released(sst2))
    shrunk: set[bool] = set()
    with Workspace().open(options) as bench:
        optimizer = options.optimizer(bench.parameters)
        for step in range(4):
            indices = BatchSampler(60, 4, 0).indices(step)
            estimate = optimizer.estimate(lambda: bench.train.loss(indices))  # noqa: B023
            clipped = options.clipping.clip(estimate, optimizer.weights)
            for before, after in zip(estimate.coefficients, clipped, strict=True):
                shrunk |= {abs(a) < abs(b) for a, b in zip(after, before, strict=True)}
            optimizer.apply(estimate)
    assert shrunk == {True, False}


METHODS = {
    "kerzoo_code": RELEASED,
    "kerzoo_code_coupled": (*RELEASED, "momentum=coupled_copy"),
    "richardson4": ("arm=richardson4",),
    "mezo_buffer": ("arm=mezo", "momentum=buffer"),
    "mezo_replay": ("arm=mezo", "momentum=replay"),
    "mezo_coupled_copy": ("arm=mezo", "momentum=coupled_copy"),
    "inplace": ("arm=kerzoo_paper", "training.precision=inplace"),
    "inplace_code": (*RELEASED, "training.precision=inplace"),
    "half_in_place": (
        "arm=mezo",
        "model.dtype=bfloat16",
        "tuning=full",
        "training.precision=inplace_half",
    ),
    "decayed": ("arm=mezo", "training.weight_decay=1", "learning_rate_schedule=cosine"),
    "schedules": ("arm=kerzoo_paper", "bandwidth=cosine", "perturbation_scale_schedule=linear"),
    "rademacher_global": (
        "arm=legendre6",
        "perturbation=rademacher",
        "clipping=global_norm",
        "clipping.bound=0.5",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_that_was_killed_twice_ends_bit_for_bit_as_one_that_was_not(
    sst2: Path, tmp_path: Path, workspace: Workspace, method: str
) -> None:
    config = config_of(sst2, *METHODS[method])
    through = run(config, tmp_path / "through", workspace)
    for stop in (1, 3):
        killed = run(config, tmp_path / "killed", workspace, stop)
        assert len(steps_of(killed)) == stop
    resumed = run(config, tmp_path / "killed", workspace)
    assert resumed.read()["attempts"] == 3
    assert numbers(resumed.rows()) == numbers(through.rows())
    assert losses_of(resumed) == losses_of(through)


@pytest.mark.parametrize("method", ["kerzoo_code", "mezo_buffer", "inplace"])
def test_threads_of_the_noise_change_no_bit_of_a_replay(
    sst2: Path,
    tmp_path: Path,
    workspace: Workspace,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "PIECE", 10_000)
    config = config_of(sst2, *METHODS[method], "tuning=full", "model.hidden_size=64")
    steps = steps_of(run(config, tmp_path, workspace, stop=4))
    options = TrialOptions.from_config(config)
    replayed = []
    for threads in (1, 2):
        training = dataclasses.replace(options.training, threads=threads)
        with Workspace().open(options) as bench:
            optimizer = dataclasses.replace(options, training=training).optimizer(bench.parameters)
            assert len(optimizer.weights) > 2 * compiled.PIECE
            for record in steps:
                optimizer.replay(record.losses)
            replayed.append(optimizer.weights.theta.clone())
    assert torch.equal(*replayed)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_replay_leaves_the_weights_that_the_run_had(sst2: Path, lazy: bool) -> None:
    """Also in place, where perturbing and restoring moves the weights by its rounding."""
    for method in ("kerzoo_code", "mezo_replay", "inplace_code", "half_in_place"):
        options = TrialOptions.from_config(config_of(sst2, *METHODS[method]))
        made = []
        losses: list[tuple[float, ...]] = []
        for replay in (False, True):
            with Workspace().open(options) as bench:
                optimizer = options.optimizer(bench.parameters, lazy)
                for step in range(4):
                    if replay:
                        optimizer.replay(losses[step])
                        continue
                    indices = BatchSampler(60, 4, 0).indices(step)
                    estimate = optimizer.estimate(lambda: bench.train.loss(indices))  # noqa: B023
                    optimizer.apply(estimate)
                    losses.append(estimate.losses)
                optimizer.settle()
                made.append((optimizer.weights.theta.clone(), optimizer.weights.working.clone()))
        assert all(torch.equal(a, b) for a, b in zip(*made, strict=True)), method


def signature_of(data: Path, *overrides: str) -> str:
    config = config_of(data, *overrides)
    return signature(TrialOptions.from_config(config), config)


PAPER = ("arm=kerzoo_paper",)
SCALED = ("arm=kerzoo_paper", "kernel=legendre4_released", "bandwidth=full")
HALF = ("arm=kerzoo_paper", "bandwidth=half", "training.perturbation_scale=2e-2")
HALF_SCALE = ("arm=kerzoo_paper", "training.perturbation_scale=1e-2")


def test_a_constant_factor_of_the_kernel_is_a_learning_rate(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    assert signature_of(sst2, *PAPER) == signature_of(sst2, *SCALED)
    slower = (*SCALED, "training.learning_rate=0.25e-3")
    paper = run(config_of(sst2, *PAPER), tmp_path / "paper", workspace)
    scaled = run(config_of(sst2, *slower), tmp_path / "scaled", workspace)
    for one, other in zip(losses_of(paper), losses_of(scaled), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(
    "active",
    ["clipping=tensor_norm", "clipping=projected_gradient", "training.weight_decay=0.1"],
)
def test_with_clipping_or_weight_decay_a_factor_of_the_kernel_is_no_learning_rate(
    sst2: Path, active: str
) -> None:
    assert signature_of(sst2, *PAPER, active) != signature_of(sst2, *SCALED, active)
    assert signature_of(sst2, *PAPER, active) != signature_of(sst2, *PAPER)


def test_half_the_bandwidth_is_half_the_perturbation_scale_where_the_kernel_is_rescaled(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    assert signature_of(sst2, *HALF) == signature_of(sst2, *HALF_SCALE)
    half = run(config_of(sst2, *HALF), tmp_path / "half", workspace)
    scale = run(config_of(sst2, *HALF_SCALE), tmp_path / "scale", workspace)
    for one, other in zip(losses_of(half), losses_of(scale), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_what_differs_in_more_than_a_factor_has_another_signature(sst2: Path) -> None:
    different = [
        ("arm=mezo",),
        ("arm=legendre2",),
        PAPER,
        HALF,
        ("arm=kerzoo_paper", "bandwidth=linear"),
        ("arm=kerzoo_paper", "training.r_scope=tensor"),
        ("arm=kerzoo_paper", "perturbation=sphere"),
        ("arm=mezo", "momentum=buffer"),
        ("arm=mezo", "learning_rate_schedule=linear"),
        ("arm=mezo", "training.seed=1"),
        ("arm=kerzoo_code",),
        ("arm=kerzoo_code", "momentum=coupled_copy"),
    ]
    found = [signature_of(sst2, *overrides) for overrides in different]
    assert len(set(found)) == len(different)


def test_the_estimator_of_the_released_arm_is_the_released_method(sst2: Path) -> None:
    options = TrialOptions.from_config(config_of(sst2, "arm=kerzoo_code", "training.seed=3"))
    estimator: Estimator = options.estimator()
    assert options.forward_passes_per_step == 6
    draw = estimator.draw(2, 1, num_tensors=5)[0]
    assert len(set(draw.radii)) == 5
    assert max(map(abs, draw.radii)) <= 0.5  # step 2 of 4: 1 - t / T
    assert draw.weights == pytest.approx([15 * r * (5 - 7 * r * r) for r in draw.radii])
