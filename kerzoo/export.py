"""`python -m kerzoo.export`: a trial's weights as an ordinary Hugging Face folder.

Nothing but the configuration in trial.json, the log of the steps and the model that the trial
began with is needed: the steps are replayed, which takes no forward pass and gives the weights
bit for bit (on the same type of machine). First-order trials keep their weights at each rung.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kerzoo import METHOD_VERSION
from kerzoo.build import TARGET, resolve
from kerzoo.identity import trial_id
from kerzoo.models import HubModel, LoadedModel, ModelSource
from kerzoo.models.folder import quiet_transformers
from kerzoo.options import TrialOptions
from kerzoo.progress import Progress, ProgressBars, no_progress
from kerzoo.records import Row, TrialFolder, score_of, write_json
from kerzoo.training import gpus_of_plan
from kerzoo.trajectory import StepRecord, read_trajectory
from kerzoo.tuning import Attached
from kerzoo.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = {
    "model": "the whole model: AutoModelForCausalLM.from_pretrained('DIR')",
    "adapters": "adapters, and where their base is: "
    "AutoPeftModelForCausalLM.from_pretrained('DIR', dtype='DTYPE') loads both",
    "adapters without base": "adapters of a model that was made from a config and lies nowhere. "
    "--merge writes a whole model instead; or make the base, "
    "kerzoo.build.build(about['config']['model'], 'model').load('cpu').model with the content of "
    "DIR/kerzoo.json as about, and then PeftModel.from_pretrained(base, 'DIR')",
}
"""What a folder can hold, in words."""

IDS_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trial's weights after some of its steps.

    Attributes:
        folder: The trial.
        row: The evaluation of these weights.
    """

    folder: TrialFolder
    row: Row


def find_checkpoint(results: Path, trial: str = "best", step: int | None = None) -> Checkpoint:
    """The checkpoint that dev chose, of one trial or of all.

    Args:
        results: results/NAME.
        trial: A trial's id, or "best" for all trials.
        step: An evaluated step, 0 for the untouched model; None for the one of lowest dev loss
            after the first update, the earlier of equal ones.

    Raises:
        ValueError: If there is no such trial, or no such step was evaluated.
    """
    known = sorted(path.parent for path in (results / "trials").glob("*/trial.json"))
    if not known:
        raise ValueError(f"{results}: no trial here; name a results folder that sweep.py wrote")
    if trial == "best":
        paths = [path for path in known if _changes_weights(path)]
    else:
        paths = [path for path in known if path.name == trial]
    if not paths and trial != "best":
        listed = ", ".join(path.name for path in known[:IDS_SHOWN])
        more = f" and {len(known) - IDS_SHOWN} more" if len(known) > IDS_SHOWN else ""
        raise ValueError(f"{results}: no trial {trial} here; --trial is one of {listed}{more}")
    rows = [(TrialFolder(path), row) for path in paths for row in TrialFolder(path).rows()]
    evaluated = [(folder, row) for folder, row in rows if not row["diverged"]]
    if step is not None:
        steps = sorted({row["step"] for _, row in evaluated})
        evaluated = [(folder, row) for folder, row in evaluated if row["step"] == step]
        if not evaluated:
            raise ValueError(f"--step {step}: not evaluated; these were: {steps}")
    else:
        evaluated = [(folder, row) for folder, row in evaluated if row["step"] > 0]
    if not evaluated:
        raise ValueError(
            f"{results}: nothing was evaluated after an update yet, so there is nothing to choose"
        )
    return Checkpoint(*min(evaluated, key=lambda found: (found[1]["dev_loss"], found[1]["step"])))


def _changes_weights(path: Path) -> bool:
    """Whether a trial ends with a model of its own."""
    config = TrialFolder(path).read()["config"]
    return bool(resolve(config["method"][TARGET]).changes_weights)


def export(
    checkpoint: Checkpoint, out: Path, merge: bool = False, progress: Progress = no_progress
) -> str:
    """Write the checkpoint's model, or its adapters alone, the tokenizer, kerzoo.json and a card.

    Args:
        checkpoint: What to rebuild.
        out: A folder that does not exist yet, or is empty. It appears when all is written.
        merge: Whether adapters are added to the base model's weights, which gives a whole model.
        progress: Told about the replay.

    Returns:
        What the folder holds, a key of `KINDS`.

    Raises:
        ValueError: If the folder is not empty, the adapters cannot be merged, the trial ran with
            another version of the method or on a device that is not here, its log ends too early,
            or model and data are not those that it ran with.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: must be new or an empty folder; nothing is overwritten")
    content = checkpoint.folder.read()
    options = _read_options(checkpoint.folder.path, content)
    if merge and not options.tuning.can_be_merged:
        raise ValueError(
            f"--merge: {type(options.tuning).__name__} puts virtual tokens in front of the input, "
            "which no model without adapters does; leave --merge out"
        )
    steps = _read_steps(checkpoint)
    torch.set_num_threads(options.training.threads)
    num_devices = gpus_of_plan(checkpoint.folder.path.parents[1] / "plan.json")
    loaded = Workspace(progress=progress, num_devices=num_devices).load(options)
    tuning = options.method.tuning(options)
    with tuning.attach(loaded.model, options.training.seed) as attached:
        parameters = list(attached.parameters.values())
        options.method.rebuild(options, parameters, checkpoint.folder, steps, progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            folder = Path(temporary) / out.name
            with quiet_transformers():
                kind = _save(attached, loaded, options.model, folder, merge)
            about = {key: content[key] for key in ("trial_id", "arm", "config", "method_version")}
            about |= {"row": checkpoint.row, "holds": kind, "base": loaded.revision}
            write_json(folder / "kerzoo.json", about)
            card = _describe(checkpoint, content, kind, loaded.revision, _hub_base(options.model))
            (folder / "README.md").write_text(card, encoding="utf-8")  # PEFT's has blanks to fill
            os.replace(folder, out)
    return kind


def _read_options(path: Path, content: dict[str, Any]) -> TrialOptions:
    """The trial's objects, if its log can be replayed here."""
    version = content.get("method_version", "1 or older")
    if version != METHOD_VERSION:
        raise ValueError(
            f"{path}: ran with method version {version}, and this is {METHOD_VERSION}, which would "
            "replay its log to other weights; use the kerzoo that ran it"
        )
    options = TrialOptions.from_config(content["config"])
    if options.training.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{path}: ran on cuda, whose directions have other last bits than a CPU's, and there "
            "is no GPU here; export it on a machine that has one"
        )
    config, model, data = content["config"], options.model, options.task
    found = trial_id(config, options.kernel, model.fingerprint(), data.fingerprint())
    if found != content["trial_id"]:
        raise ValueError(
            f"trial {content['trial_id']}: its model or data have changed since it ran (they now "
            f"make it trial {found}); put back the files that model.path and task.data_dir name"
        )
    return options


def _read_steps(checkpoint: Checkpoint) -> list[StepRecord]:
    path = checkpoint.folder.trajectory_path
    steps, needed = read_trajectory(path), checkpoint.row["step"]
    if len(steps) < needed:
        raise ValueError(f"{path}: has {len(steps)} whole steps, and {needed} are needed")
    return steps[:needed]


def _save(
    attached: Attached, loaded: LoadedModel, source: ModelSource, folder: Path, merge: bool
) -> str:
    """Write model or adapters, and tokenizer; returns what was written."""
    from peft import PeftModel, TaskType

    model: PreTrainedModel | PeftModel = attached.model
    loaded.model.config.use_cache = True  # training did without
    loaded.tokenizer.save_pretrained(folder)
    if isinstance(model, PeftModel) and not merge:
        base, revision = _find_base(loaded.model, source)
        config = model.peft_config["default"]
        config.base_model_name_or_path, config.revision = base, revision
        config.task_type = TaskType.CAUSAL_LM
        # "auto" would ask the hub for the base model's vocabulary.
        model.save_pretrained(str(folder), save_embedding_layers=False)
        return "adapters" if base else "adapters without base"
    whole: Any = model.merge_and_unload() if isinstance(model, PeftModel) else model
    whole.save_pretrained(str(folder))
    return "model"


def _describe(
    checkpoint: Checkpoint, content: dict[str, Any], kind: str, revision: str, base: str | None
) -> str:
    """The model card: what was trained on what and how, how well it does, how to load it.

    Args:
        checkpoint: What was exported.
        content: Of trial.json.
        kind: What the folder holds, a key of `KINDS`.
        revision: Of the model that the trial began with.
        base: Its name on the hub, or None.
    """
    row, config = checkpoint.row, content["config"]
    (name, score), model, task = score_of(row), config["model"]["name"], config["task"]["name"]
    untouched = checkpoint.folder.rows()[0]
    before = "" if untouched["step"] else f", {untouched['dev_loss']:.4f} without training"
    about = {"library_name": "transformers" if kind == "model" else "peft", "base_model": base}
    table = {
        "arm": content["arm"],
        "model": f"{model}, {revision}",
        "tuning": config["tuning"][TARGET].rpartition(".")[2],
        "task": task,
        "dev loss": f"{row['dev_loss']:.4f}{before}",
        f"dev {name}": f"{score:.3f}",
        "trained for": f"{row['step']} steps, {row['forward_passes']} forward passes",
        "trial": content["trial_id"],
    }
    return "\n".join(
        [
            "---",
            *(f"{key}: {value}" for key, value in about.items() if value is not None),
            "---",
            f"# {model} tuned on {task} by {content['arm']}\n",
            *("| | |", "|---|---|"),
            *(f"| {key} | {value} |" for key, value in table.items()),
            "\nA checkpoint that was chosen by its dev loss looks better there than it is.\n",
            f"With DIR for this folder, it holds {KINDS[kind]}".replace(
                "DTYPE", config["model"]["dtype"]
            ),
            f"\nIt was trained by\n\n```\n{content['command']}\n```\n",
            "and kerzoo.json has the whole configuration.\n",
        ]
    )


def _hub_base(source: ModelSource) -> str | None:
    """The model's name on the hub, if it was loaded from there."""
    return source.hub_id if source.path is None and isinstance(source, HubModel) else None


def _find_base(model: PreTrainedModel, source: ModelSource) -> tuple[str | None, str | None]:
    """What `from_pretrained` finds the base model by, and the revision on the hub."""
    if source.path is None and isinstance(source, HubModel):
        return source.hub_id, source.revision
    path = str(model.name_or_path or "")
    return (str(Path(path).absolute()), None) if path else (None, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kerzoo.export",
        description="Write a trial's fine-tuned model, or its adapters, as an ordinary Hugging "
        "Face folder, rebuilt from the log of its steps, which takes no forward pass. The "
        "checkpoint of lowest dev loss is taken; trials that were stopped or interrupted count.",
        epilog="Then: AutoModelForCausalLM.from_pretrained(DIR), with adapters "
        "AutoPeftModelForCausalLM.from_pretrained(DIR, dtype=...). DIR/kerzoo.json says which "
        "trial and step it is, and its figures. Exit codes: 0 done; 2 something is wrong, and "
        "nothing was written; 130 interrupted.",
    )
    parser.add_argument("results", type=Path, help="results/NAME, written by sweep.py")
    parser.add_argument(
        "--trial", default="best", metavar="ID", help="a trial's id; by default the best of all"
    )
    parser.add_argument("--step", type=int, metavar="N", help="an evaluated step to take instead")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="add adapters to the base model's weights and write the whole model",
    )
    options = parser.parse_args(arguments)
    try:
        checkpoint = find_checkpoint(options.results, options.trial, options.step)
        kind = export(checkpoint, options.out, options.merge, ProgressBars())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    row = checkpoint.row
    name, score = score_of(row)
    print(
        f"{options.out}: trial {row['trial_id']} ({row['arm']}) after {row['step']} steps, "
        f"dev loss {row['dev_loss']:.4f}, {name} {score:.3f}"
    )
    dtype = checkpoint.folder.read()["config"]["model"]["dtype"]
    print(f"It holds {KINDS[kind].replace('DIR', str(options.out)).replace('DTYPE', dtype)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
