"""Continuations and answers: the batched scores equal a slow loop over unbatched examples."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kerzoo.evaluation import evaluate
from kerzoo.losses import AnswerLoss, ContinuationLoss, SequenceRunner, open_loss
from kerzoo.losses.answers import best_f1
from kerzoo.models import LoadedModel
from kerzoo.tasks import (
    ClassificationTask,
    ContinuationSplit,
    Example,
    ExampleSource,
    GenerationTask,
    MultipleChoiceTask,
)
from kerzoo.tasks.sources import Pool

TOLERANCE = 1e-4
SIZES: dict[str, Any] = {"num_dev": 0, "num_test": 0}
CHOICES = (
    Example({"text": "the film was dull"}, 1, (" and long", " and so it was very good")),
    Example({"text": "a comedy"}, 0, (" is funny", " is not", " would be the same drama"), (2,)),
    Example({"text": "the actor had a great time and the audience had"}, 0, (" none", " one too")),
)


@dataclasses.dataclass(frozen=True)
class Given(ExampleSource):
    """Examples that a test names."""

    pool: tuple[Example, ...]
    num_labels: int | None = None

    fields = ("text",)

    def check_available(self, data_dir: str | None, pool: str) -> None:
        """Always."""

    def fingerprint(self, data_dir: str | None) -> str:
        """Of no use here."""
        return "given"

    def read_pool(self, data_dir: str | None, pool: str) -> Pool:
        """The same for both pools."""
        return Pool(self.pool, {})


def choices(objective: Any = "language_model") -> MultipleChoiceTask:
    return MultipleChoiceTask(
        name="choices",
        source=Given(CHOICES),
        prompt="{text}",
        objective=objective,
        num_train=len(CHOICES),
        **SIZES,
    )


def opened(loaded: LoadedModel, task: Any, objective: Any = None) -> Any:
    split = task.encode(loaded.tokenizer, "train")
    runner = SequenceRunner(loaded, split.sequences)
    return open_loss(task, runner, split, objective or task.objective)


def slow_log_likelihoods(loaded: LoadedModel, split: ContinuationSplit) -> list[torch.Tensor]:
    """log p of each continuation token, one sequence at a time, from the full logits."""
    found = []
    for sequence in range(len(split.sequences)):
        start, stop = split.sequences.offsets[sequence : sequence + 2].tolist()
        tokens = split.sequences.tokens[start:stop]
        with torch.inference_mode():
            logits = loaded.model(input_ids=tokens[None]).logits[0].double()
        likelihoods = logits.log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
        found.append(likelihoods[-int(split.continuation_lengths[sequence]) :])
    return found


def test_scores_are_those_of_a_slow_loop_whatever_the_batch(loaded: LoadedModel) -> None:
    loss = opened(loaded, choices())
    assert isinstance(loss, ContinuationLoss)
    slow = slow_log_likelihoods(loaded, loss.split)
    for indices in ([0, 1, 2], [2], [1, 0]):
        scores = loss.scores(indices)
        for row, index in zip(scores, indices, strict=True):
            own = loss.split.sequences_of(index)
            expected = [float(slow[s].mean()) for s in own]
            assert row[: len(own)].tolist() == pytest.approx(expected, abs=TOLERANCE)
            assert bool((row[len(own) :] == -torch.inf).all())


def test_the_language_models_loss_is_the_mean_over_the_tokens_of_right_continuations(
    loaded: LoadedModel,
) -> None:
    loss = opened(loaded, choices())
    slow = slow_log_likelihoods(loaded, loss.split)
    right = [int(loss.split.first_sequence[i] + loss.split.labels[i]) for i in range(3)]
    expected = -float(torch.cat([slow[s] for s in right]).mean())
    assert loss.loss([2, 0, 1]) == pytest.approx(expected, abs=TOLERANCE)
    assert evaluate(loss).loss == pytest.approx(expected, abs=TOLERANCE)
    assert loss.num_tokens([0]) == loss.split.sequences.lengths[right[0]]


def test_the_loss_over_candidates_is_the_cross_entropy_of_their_scores(loaded: LoadedModel) -> None:
    loss = opened(loaded, choices("cross_entropy"))
    scores = loss.scores([0, 1, 2])
    expected = float(F.cross_entropy(scores, loss.split.labels))
    assert loss.loss([0, 1, 2]) == pytest.approx(expected, abs=1e-6)
    assert loss.num_tokens([1]) == sum(
        loss.split.sequences.lengths[s] for s in loss.split.sequences_of(1)
    )


def test_any_right_candidate_counts_and_accuracy_can_be_the_objective(loaded: LoadedModel) -> None:
    loss = opened(loaded, choices("accuracy"))
    best = loss.scores([0, 1, 2]).argmax(dim=1).tolist()
    right = [best[0] == 1, best[1] in (0, 2), best[2] == 0]
    assert loss.loss([0, 1, 2]) == pytest.approx(1 - sum(right) / 3)
    dev = opened(loaded, choices("accuracy"), choices("accuracy").dev_objective)
    assert evaluate(dev).accuracy == pytest.approx(sum(right) / 3)


def test_single_token_label_words_and_their_continuations_give_the_same_loss(
    loaded: LoadedModel,
) -> None:
    pool = tuple(
        Example({"text": text}, label)
        for text, label in (("a great film", 1), ("so dull and long", 0), ("the plot", 0))
    )
    task = ClassificationTask(
        name="words",
        source=Given(pool, 2),
        prompt="{text} It was",
        label_words=(" terrible", " great"),
        num_train=3,
        **SIZES,
    )
    fast = opened(loaded, task)
    as_language_model = dataclasses.replace(task, objective="language_model")
    slow = opened(loaded, as_language_model, "cross_entropy")
    assert isinstance(slow, ContinuationLoss)
    for indices in ([0, 1, 2], [1]):
        assert fast.loss(indices) == pytest.approx(slow.loss(indices), abs=TOLERANCE)


def test_greedy_answers_are_those_of_a_slow_loop_whatever_the_batch(loaded: LoadedModel) -> None:
    pool = tuple(
        Example({"text": text}, answers=("great", "good film"))
        for text in ("the film", "an unbelievably long comedy and a plot", "so")
    )
    task = GenerationTask(
        name="answers",
        source=Given(pool),
        prompt="{text}\nAnswer:",
        max_new_tokens=5,
        max_length=48,
        num_train=3,
        **SIZES,
    )
    loss = opened(loaded, task)
    assert isinstance(loss, AnswerLoss)
    assert loss.split.prompts is not None
    tokenizer: Any = loaded.tokenizer
    stops = {tokenizer.eos_token_id, tokenizer("\n", add_special_tokens=False)["input_ids"][-1]}
    expected = []
    for index in range(3):
        start, stop = loss.split.prompts.offsets[index : index + 2].tolist()
        tokens = loss.split.prompts.tokens[start:stop].tolist()
        length = len(tokens)
        while len(tokens) < length + 5:
            with torch.inference_mode():
                logits = loaded.model(input_ids=torch.tensor([tokens])).logits[0, -1]
            tokens.append(int(logits.argmax()))
            if tokens[-1] in stops:
                break
        expected.append(tokenizer.decode(tokens[length:], skip_special_tokens=True).strip())
    assert loss.generate([0, 1, 2]) == expected
    assert loss.generate([2]) == expected[2:]
    f1 = [best_f1(text, ("great", "good film")) for text in expected]
    assert evaluate(loss).f1 == pytest.approx(sum(f1) / 3)
    assert evaluate(loss).accuracy is None
