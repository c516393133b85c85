"""Published numbers to set a reproduction beside: quoted, and not verified by anyone here.

Only what is published for a model under its own name is shown beside that model's results.
"""

from __future__ import annotations

import dataclasses

MEZO_PAPER = "Malladi et al. 2023, arXiv 2305.17333"

Figure = tuple[float, float | None]
"""Score in points, and its standard deviation over seeds where one is published."""


@dataclasses.dataclass(frozen=True)
class Quoted:
    """A row of a published table.

    Attributes:
        model: The model, as an option of conf/model is called.
        method: The row's name there.
        tuning: As an option of conf/tuning is called; empty where it is not said.
        scores: Task → score in points.
        source: Where it is published.
        shots: Training examples of each class, where they are counted like that.
    """

    model: str
    method: str
    tuning: str
    scores: dict[str, Figure]
    source: str
    shots: int | None = None


_OPT_TASKS = (
    "sst2",
    "rte",
    "cb",
    "boolq",
    "wsc",
    "wic",
    "multirc",
    "copa",
    "record",
    "squad",
    "drop",
)
_OPT_13B = {
    ("zero-shot", ""): (58.8, 59.6, 46.4, 59.0, 38.5, 55.0, 46.9, 80.0, 81.2, 46.2, 14.6),
    ("in-context", ""): (87.0, 62.1, 57.1, 66.9, 39.4, 50.5, 53.1, 87.0, 82.5, 75.9, 29.6),
    ("linear probe", ""): (93.4, 68.6, 67.9, 59.3, 63.5, 60.2, 63.5, 55.0, 27.1, 3.7, 11.1),
    ("MeZO", "full"): (91.4, 66.1, 67.9, 67.6, 63.5, 61.1, 60.1, 88.0, 81.7, 84.7, 30.9),
    ("MeZO", "lora"): (89.6, 67.9, 66.1, 73.8, 64.4, 59.7, 61.5, 84.0, 81.2, 83.8, 31.4),
    ("MeZO", "prefix"): (90.7, 70.8, 69.6, 73.1, 60.6, 59.9, 63.7, 87.0, 81.4, 84.2, 28.9),
    ("Adam", "full"): (92.0, 70.8, 83.9, 77.1, 63.5, 70.1, 71.1, 79.0, 74.1, 84.9, 31.3),
}

_ROBERTA_TASKS = (
    "roberta_sst2",
    "roberta_sst5",
    "roberta_snli",
    "roberta_mnli",
    "roberta_rte",
    "roberta_trec",
)
_ROBERTA_SHOTS = 16
_ROBERTA_LARGE: dict[tuple[str, str], tuple[Figure, ...]] = {
    ("zero-shot", ""): (
        (79.0, None),
        (35.5, None),
        (50.2, None),
        (48.8, None),
        (51.4, None),
        (32.0, None),
    ),
    ("MeZO", "full"): (
        (90.5, 1.2),
        (45.5, 2.0),
        (68.5, 3.9),
        (58.7, 2.5),
        (64.0, 3.3),
        (76.9, 2.7),
    ),
    ("MeZO", "lora"): (
        (91.4, 0.9),
        (43.0, 1.6),
        (69.7, 6.0),
        (64.0, 2.5),
        (64.9, 3.6),
        (73.1, 6.5),
    ),
    ("MeZO", "prefix"): (
        (90.8, 1.7),
        (45.8, 2.0),
        (71.6, 2.5),
        (63.4, 1.8),
        (65.4, 3.9),
        (80.3, 3.6),
    ),
    ("fine-tuning", "full"): (
        (91.9, 1.8),
        (47.5, 1.9),
        (77.5, 2.6),
        (70.0, 2.3),
        (66.4, 7.2),
        (85.0, 2.5),
    ),
}

QUOTED: tuple[Quoted, ...] = (
    *(
        Quoted(
            "opt-13b",
            method,
            tuning,
            {task: (score, None) for task, score in zip(_OPT_TASKS, scores, strict=True)},
            MEZO_PAPER,
        )
        for (method, tuning), scores in _OPT_13B.items()
    ),
    *(
        Quoted(
            "roberta-large",
            method,
            tuning,
            dict(zip(_ROBERTA_TASKS, scores, strict=True)),
            MEZO_PAPER,
            _ROBERTA_SHOTS,
        )
        for (method, tuning), scores in _ROBERTA_LARGE.items()
    ),
    Quoted(
        "opt-2.7b",
        "MeZO",
        "",
        {"sst2": (91.6, None)},
        "a published log: learning rate 1e-6, 4 000 steps, 500 test examples",
    ),
)
"""KerZOO's own tables could not be obtained, so none of its scores is here."""


@dataclasses.dataclass(frozen=True)
class QuotedDifference:
    """Published differences from MeZO, without the scores that they are differences of.

    Attributes:
        model: As an option of conf/model is called.
        method: Whose.
        differences: Task → difference in points.
        source: Where they are published.
    """

    model: str
    method: str
    differences: dict[str, float]
    source: str


QUOTED_DIFFERENCES = (
    QuotedDifference(
        "opt-2.7b",
        "KerZOO",
        {"wsc": 2.9, "multirc": 2.6},
        "Mi et al. 2025, arXiv 2505.18886, abstract, at 74 and 44 % fewer GPU hours",
    ),
)
"""All that is known to us of KerZOO's own results on a model that can be run here."""
