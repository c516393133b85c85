"""Trials of a tiny model on a tiny local data set: no network, and milliseconds a step."""

from __future__ import annotations

import copy
import itertools
import random
from pathlib import Path
from typing import Any

from kerzoo.frozen import CachedEntry, FrozenOutputs
from kerzoo.losses import LabelWordLoss, SequenceRunner
from kerzoo.models import LoadedModel
from kerzoo.records import TIMING_COLUMNS, Row, TrialFolder, TrialSpec
from kerzoo.tasks import LabelWordSplit

_BAD = ["terrible", "bad", "awful", "boring", "poor", "dull"]
_GOOD = ["great", "good", "wonderful", "brilliant", "excellent", "funny"]
_SUBJECTS = [
    "film",
    "movie",
    "story",
    "plot",
    "character",
    "actor",
    "scene",
    "director",
    "comedy",
    "drama",
]
_TAILS = (
    "",
    "and so long",
    "from first to last",
    "with all that it has to say about life and time",
)

LORA = {
    "_target_": "kerzoo.tuning.LoRA",
    "rank": 2,
    "alpha": 4,
    "target_modules": ["q_proj", "v_proj"],
    "last_layers": None,
}
LORA_LAST = LORA | {"last_layers": 2}
FULL = {"_target_": "kerzoo.tuning.FullTuning", "last_layers": None}
FULL_LAST = FULL | {"last_layers": 2}
TUNINGS = {"lora": LORA, "lora_last2": LORA_LAST, "full": FULL, "full_last2": FULL_LAST}

MEZO = {"_target_": "kerzoo.kernels.ConstantKernel"}
LEGENDRE4 = {"_target_": "kerzoo.kernels.PolynomialKernel", "density": "uniform", "order": 4}

MODEL = {
    "_target_": "kerzoo.models.TinyOpt",
    "name": "opt-tiny",
    "dtype": "float32",
    "num_parameters": 80_480,
    "num_layers": 4,
    "hidden_size": 32,
    "num_heads": 4,
    "num_positions": 64,
    "init_std": 0.1,
    "seed": 0,
    "path": None,
}
ZEROTH_ORDER = {"_target_": "kerzoo.methods.ZerothOrder"}
CONSTANT = {"_target_": "kerzoo.schedules.ConstantSchedule"}


def write_sst2(folder: Path) -> Path:
    """Write `stsa.binary.train` and `stsa.binary.dev`; every sentence differs from all others."""
    sentences = [
        (label, f"the {subject} was {word} {tail}".strip())
        for subject, tail in itertools.product(_SUBJECTS, _TAILS)
        for label, words in ((0, _BAD), (1, _GOOD))
        for word in words[:2]
    ]
    random.Random(0).shuffle(sentences)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("train", sentences[:100]), ("dev", sentences[100:])):
        lines = "".join(f"{label} {text}\n" for label, text in chosen)
        (folder / f"stsa.binary.{name}").write_text(lines)
    return folder


def trial_config(data_dir: Path | str, **changes: Any) -> dict[str, Any]:
    """A resolved configuration; a change is a whole part, or a key of `training`."""
    config: dict[str, Any] = {
        "arm": {"name": "mezo", "description": "for tests"},
        "method": ZEROTH_ORDER,
        "model": MODEL,
        "task": {
            "_target_": "kerzoo.tasks.ClassificationTask",
            "name": "sst2",
            "source": {
                "_target_": "kerzoo.tasks.Sst2",
                "hub_id": "nyu-mll/glue",
                "revision": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
            },
            "prompt": "{text} It was",
            "label_words": [" terrible", " great"],
            "num_train": 60,
            "num_dev": 40,
            "num_test": 20,
            "data_seed": 0,
            "max_length": 32,
            "data_dir": str(data_dir),
        },
        "kernel": LEGENDRE4,
        "bandwidth": {
            "_target_": "kerzoo.schedules.Bandwidth",
            "half_width": 1.0,
            "schedule": CONSTANT,
            "rescale": True,
        },
        "perturbation": {"_target_": "kerzoo.noise.Gaussian"},
        "clipping": {"_target_": "kerzoo.clipping.NoClipping"},
        "momentum": {"_target_": "kerzoo.momentum.NoMomentum"},
        "learning_rate_schedule": CONSTANT,
        "perturbation_scale_schedule": CONSTANT,
        "tuning": LORA,
        "training": {
            "learning_rate": 0.01,
            "perturbation_scale": 0.05,
            "forward_passes": 24,
            "rungs": [0.25, 0.5, 1.0],
            "batch_size": 8,
            "seed": 0,
            "num_directions": 1,
            "r_scope": "step",
            "weight_decay": 0.0,
            "precision": "master",
            "points_per_forward": 1,
            "threads": 1,
            "device": "cpu",
        },
    }
    for name, value in changes.items():
        where = config if name in config else config["training"]
        assert name in where, name
        where[name] = value
    return copy.deepcopy(config)


def trial_spec(
    config: dict[str, Any], identity: str = "trial0", phase: str = "screen"
) -> TrialSpec:
    """The configuration as the plan lists it."""
    training = config["training"]
    return TrialSpec(
        trial_id=identity,
        arm=config["arm"]["name"],
        phase=phase,
        overrides=[],
        choices={"kernel": "kernel", "tuning": "tuning"},
        config=config,
        rungs=[round(f * training["forward_passes"]) for f in training["rungs"]],
        command="python -m kerzoo.training plan.json",
    )


def label_word_loss(
    loaded: LoadedModel,
    split: LabelWordSplit,
    stored: FrozenOutputs | None = None,
    entry: CachedEntry | None = None,
) -> LabelWordLoss:
    """The cross-entropy over the label words of a split."""
    runner = SequenceRunner(loaded, split.sequences, stored, entry)
    return LabelWordLoss(runner, split, "cross_entropy")


def created(folder: Path, spec: TrialSpec) -> TrialFolder:
    """The folder of a trial that was planned."""
    trial = TrialFolder(folder / spec.trial_id)
    trial.create(spec)
    return trial


def numbers(rows: list[Row]) -> list[Row]:
    """Rows without what may differ between two runs that are bit-equal."""
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in rows]
