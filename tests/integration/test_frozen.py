"""Cached outputs of frozen layers: the same loss, and a content that depends on nobody."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trials import FULL, FULL_LAST, LORA_LAST, label_word_loss, trial_config

from kerzoo import frozen
from kerzoo.build import build
from kerzoo.evaluation import evaluate
from kerzoo.frozen import BATCH_EXAMPLES, frozen_layers_replaced, frozen_outputs
from kerzoo.losses import LabelWordLoss
from kerzoo.models import LoadedModel
from kerzoo.options import TrialOptions
from kerzoo.tasks import LabelWordSplit
from kerzoo.tuning import decoder_layers
from kerzoo.workspace import Workspace

FIRST = 2
TOLERANCE = 1e-6

pytestmark = pytest.mark.usefixtures("own_cache")


def cached(
    loaded: LoadedModel, split: LabelWordSplit, stack: contextlib.ExitStack
) -> LabelWordLoss:
    stored = frozen_outputs(loaded, split.sequences, FIRST)
    entry = stack.enter_context(frozen_layers_replaced(loaded.model, FIRST))
    return label_word_loss(loaded, split, stored, entry)


@pytest.mark.parametrize("node", [FULL_LAST, LORA_LAST])
@pytest.mark.parametrize("scale", [0.0, 0.05])
def test_the_loss_is_that_of_the_whole_model_also_after_the_last_layers_moved(
    loaded: LoadedModel, split: LabelWordSplit, node: dict[str, Any], scale: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    by_length = split.sequences.order_by_length()
    batches = [by_length[:1], by_length[-1:], by_length[::5], by_length[20:30], [3, 0, 59]]
    with build(node).attach(loaded.model, 0) as attached:
        parameters = attached.parameters
        for parameter in parameters.values():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
        whole = label_word_loss(loaded, split)
        expected = [whole.loss(batch) for batch in batches]
        metrics = evaluate(whole, binary=True)
        with contextlib.ExitStack() as stack:
            loss = cached(loaded, split, stack)
            assert [loss.loss(batch) for batch in batches] == pytest.approx(expected, abs=TOLERANCE)
            assert evaluate(loss).loss == pytest.approx(metrics.loss, abs=TOLERANCE)
            assert evaluate(loss, binary=True).auc == metrics.auc


def test_for_the_batches_that_filled_the_cache_the_scores_are_bit_equal(
    loaded: LoadedModel, split: LabelWordSplit
) -> None:
    order = split.sequences.order_by_length()
    batches = [order[i : i + BATCH_EXAMPLES] for i in range(0, len(order), BATCH_EXAMPLES)]
    expected = [label_word_loss(loaded, split).scores(batch) for batch in batches]
    with contextlib.ExitStack() as stack:
        loss = cached(loaded, split, stack)
        assert all(torch.equal(loss.scores(b), e) for b, e in zip(batches, expected, strict=True))


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERZOO_CACHE", str(folder))
    return folder / "frozen"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.bin")}


def use(workspace: Workspace, sst2: Path, **changes: Any) -> None:
    """Open a trial and leave its parameters changed, as training does."""
    with workspace.open(TrialOptions.from_config(trial_config(sst2, **changes))) as bench:
        for parameter in bench.parameters:
            parameter.data.add_(0.1)


def test_the_content_does_not_depend_on_which_trial_asked_first_or_on_threads(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    orders: list[tuple[int, list[dict[str, Any]]]] = [
        (1, [{"tuning": FULL_LAST}]),
        (1, [{"tuning": LORA_LAST, "seed": 3}, {"tuning": FULL_LAST}]),
        (2, [{"tuning": FULL}, {"tuning": LORA_LAST, "seed": 9, "learning_rate": 0.5}]),
        (4, [{"tuning": LORA_LAST | {"rank": 5}, "threads": 2, "batch_size": 3}]),
    ]
    for number, (threads, trials) in enumerate(orders):
        folder = in_folder(tmp_path / str(number), monkeypatch)
        workspace = Workspace(threads)
        for changes in trials:
            use(workspace, sst2, **changes)
        found.append(contents(folder))
    assert len(found[0]) == 2  # train and dev
    assert all(content == found[0] for content in found)


def test_another_split_model_dtype_depth_or_method_version_has_a_file_of_its_own(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder(tmp_path, monkeypatch)
    model = trial_config(sst2)["model"]
    trials: list[dict[str, Any]] = [
        {},
        {"tuning": LORA_LAST | {"last_layers": 1}},
        {"model": model | {"seed": 1}},
        {"model": model | {"dtype": "bfloat16"}},
        {"task": trial_config(sst2)["task"] | {"prompt": "{text} So it was"}},
    ]
    for number, changes in enumerate(trials, start=1):
        use(Workspace(), sst2, **{"tuning": LORA_LAST} | changes)
        assert len(contents(folder)) == 2 * number
    monkeypatch.setattr(frozen, "METHOD_VERSION", frozen.METHOD_VERSION + 1)
    use(Workspace(), sst2, tuning=LORA_LAST)
    assert len(contents(folder)) == 2 * len(trials) + 2
    identities = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert {i["dtype"] for i in identities} == {"torch.float32", "torch.bfloat16"}
    assert {i["first_trainable_layer"] for i in identities} == {2, 3}


def test_half_precision_is_cached_in_half_precision(
    sst2: Path, split: LabelWordSplit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_folder(tmp_path, monkeypatch)
    config = trial_config(sst2)
    loaded = TrialOptions.from_config(
        trial_config(sst2, model=config["model"] | {"dtype": "bfloat16"})
    ).model.load("cpu")
    whole = label_word_loss(loaded, split).loss([0, 1, 2])
    with contextlib.ExitStack() as stack:
        loss = cached(loaded, split, stack)
        assert loss.runner.frozen is not None
        assert loss.runner.frozen.values.dtype == torch.bfloat16
        assert loss.loss([0, 1, 2]) == pytest.approx(whole, abs=2e-2)


def test_outputs_are_computed_once_and_read_by_others(
    loaded: LoadedModel, split: LabelWordSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder(tmp_path, monkeypatch)
    calls: list[tuple[str, int, int]] = []

    def ask() -> torch.Tensor:
        outputs = frozen_outputs(
            loaded, split.sequences, FIRST, progress=lambda *call: calls.append(call)
        )
        return outputs.values

    first = ask()
    what, done, total = calls[-1]
    assert what == "computing the frozen layers' outputs"
    assert done == total > 1
    calls.clear()
    assert torch.equal(ask(), first)
    assert calls == []
    (path,) = folder.glob("*.bin")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_size == first.numel() * 4


def test_a_reader_cannot_change_what_others_read(
    loaded: LoadedModel, split: LabelWordSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder(tmp_path, monkeypatch)
    outputs = frozen_outputs(loaded, split.sequences, FIRST)
    before = contents(folder)
    outputs.values.zero_()
    assert contents(folder) == before


def test_an_interrupted_computation_leaves_nothing_and_the_next_one_is_whole(
    loaded: LoadedModel, split: LabelWordSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder(tmp_path, monkeypatch)

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frozen_outputs(loaded, split.sequences, FIRST, progress=interrupt)
    assert {path.suffix for path in folder.iterdir()} == {".lock"}
    before = label_word_loss(loaded, split).loss([0, 1])  # no hook was left behind
    with contextlib.ExitStack() as stack:
        assert cached(loaded, split, stack).loss([0, 1]) == pytest.approx(before, abs=TOLERANCE)


@pytest.mark.parametrize("raises", [False, True])
def test_the_models_structure_is_restored(loaded: LoadedModel, raises: bool) -> None:
    before = list(decoder_layers(loaded.model))
    with contextlib.suppress(RuntimeError), frozen_layers_replaced(loaded.model, 3):
        assert len(decoder_layers(loaded.model)) == len(before)
        assert decoder_layers(loaded.model)[3] is before[3]
        assert decoder_layers(loaded.model)[2] is not before[2]
        if raises:
            raise RuntimeError("out of memory")
    after = list(decoder_layers(loaded.model))
    assert all(a is b for a, b in zip(after, before, strict=True))


def test_a_workspace_restores_the_structure_after_a_trial_that_raised(sst2: Path) -> None:
    workspace = Workspace()
    options = TrialOptions.from_config(trial_config(sst2, tuning=LORA_LAST))
    before = [type(layer) for layer in decoder_layers(workspace.load(options).model)]
    model = workspace.load(options).model

    def fail() -> None:
        with workspace.open(options):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert workspace.load(options).model is model
    assert [type(layer) for layer in decoder_layers(model)] == before


def test_no_outputs_are_cached_for_a_target_that_changes_every_layers_input(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder(tmp_path, monkeypatch)
    tuning = LORA_LAST | {"target_modules": ["q_proj", "embed_tokens"]}
    with pytest.raises(ValueError, match="changes the input of every layer"):
        use(Workspace(), sst2, tuning=tuning)
    assert not folder.exists()


@pytest.mark.slow  # two processes import transformers
def test_processes_that_ask_at_once_compute_one_file(sst2: Path, tmp_path: Path) -> None:
    config = trial_config(sst2, tuning=LORA_LAST)
    program = (
        "import json, sys; from kerzoo.options import TrialOptions\n"
        "from kerzoo.workspace import Workspace\n"
        "calls = []\n"
        "options = TrialOptions.from_config(json.loads(sys.argv[1]))\n"
        "workspace = Workspace(progress=lambda what, *_: calls.append(what))\n"
        "workspace.load(options); calls.clear(); print('ready', flush=True); input()\n"
        "with workspace.open(options) as bench: print(len(calls), bench.train.loss([0, 1]))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(config)],
            env=os.environ | {"KERZOO_CACHE": str(tmp_path)},
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("go\n", timeout=120)[0].split() for process in processes]
    assert answers[0][1] == answers[1][1]
    sizes = (config["task"]["num_train"], config["task"]["num_dev"])
    batches = sum(-(-size // BATCH_EXAMPLES) for size in sizes)
    assert sum(int(calls) for calls, _ in answers) == batches  # each of them once
    assert len(contents(tmp_path / "frozen")) == 2
