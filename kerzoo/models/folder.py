"""Models read from an ordinary Hugging Face folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from kerzoo.assets import sha256_of_file
from kerzoo.models.placement import balanced_over

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CAUSAL_ARCHITECTURES = ("ForCausalLM", "GPT2LMHeadModel")
"""How the names of architectures end that are read with a causal mask."""
MASKED_ARCHITECTURE = "ForMaskedLM"
_ALIGNMENT = 64
"""Bytes, at a multiple of which torch begins every tensor; kernels may round by it."""


def read_folder(
    folder: Path, dtype: str, num_devices: int = 1
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`from_pretrained` for a folder, quietly and without running foreign code.

    Args:
        folder: With config, tokenizer and weights.
        dtype: Of the weights.
        num_devices: With 1 the model is left on the CPU; with more its layers are spread evenly
            over this many GPUs.

    Raises:
        ValueError: If transformers cannot read it, some weights are not in it, or it is no
            language model of a kind that is known here.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    kind: Any = AutoModelForMaskedLM if is_masked(folder) else AutoModelForCausalLM
    placement = {} if num_devices == 1 else balanced_over(num_devices)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, report = kind.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
                **placement,
            )
    except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{folder}: transformers cannot load the model: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{folder}: {len(missing)} weights of {type(model).__name__} are not in it, "
            f"{missing[0]} among them"
        )
    return model, tokenizer


def read_weights_again(model: PreTrainedModel) -> bool:
    """Give a model that was trained the weights of the folder that it was read from.

    They are written where the old ones lie, or beside them where no tensor of its own could lie.

    Returns:
        Whether all of them were read. They were not if the folder keeps some under another name or
        in another format, or the model was made and not read.
    """
    from safetensors import SafetensorError, safe_open

    own = dict(model.named_parameters())
    files = sorted(Path(model.name_or_path).glob("*.safetensors")) if model.name_or_path else []
    try:
        with contextlib.ExitStack() as stack:
            stored = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
            names = [(name, file) for file in stored for name in file.keys()]  # noqa: SIM118
            found = {name: file.get_slice(name) for name, file in names}
            if not own.keys() <= found.keys():
                return False
            for name, parameter in own.items():
                if parameter.data_ptr() % _ALIGNMENT:
                    parameter.data = parameter.data.clone()
                parameter.data.copy_(found[name][...])
    except (OSError, RuntimeError, SafetensorError):
        return False
    return True


def is_masked(folder: Path) -> bool:
    """Whether a model's folder holds a masked language model; otherwise it is a causal one.

    Raises:
        ValueError: If its config names another architecture, or none.
    """
    file = folder / "config.json"
    try:
        config = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: not a model's config: {error}") from error
    architecture = next(iter(config.get("architectures") or ()), None)
    name = str(architecture)
    masked = name.endswith(MASKED_ARCHITECTURE)
    if config.get("is_encoder_decoder") or not (masked or name.endswith(CAUSAL_ARCHITECTURES)):
        raise ValueError(
            f"{folder}: the model must be a causal or a masked language model (its config's "
            f"architectures must be …ForCausalLM or …{MASKED_ARCHITECTURE}), got {architecture}"
        )
    return masked


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the block, transformers shows errors only and no bars for reading weights."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def files_of_model(path: str) -> list[Path]:
    """The files in a model's folder that decide its outputs.

    Raises:
        ValueError: If config, tokenizer or weights are missing.
    """
    folder = Path(path).expanduser()
    safe = sorted(folder.glob("*.safetensors"))
    weights = safe or sorted(folder.glob("pytorch_model*.bin"))
    texts = sorted(f for s in ("json", "txt", "model") for f in folder.glob(f"*.{s}"))
    names = {file.name for file in texts}
    missing = [
        what
        for what, found in (
            ("config.json", "config.json" in names),
            ("*.safetensors", weights),
            ("tokenizer.json", names & {"tokenizer.json", "vocab.json", "tokenizer.model"}),
        )
        if not found
    ]
    if missing:
        raise ValueError(
            f"model.path must be a Hugging Face model's folder, but {path} has no "
            f"{' and no '.join(missing)}"
        )
    return [*texts, *weights]


def fingerprint_of_files(files: list[Path]) -> str:
    """Hash of the files' names and contents."""
    states = [(file, file.stat()) for file in files]
    return _fingerprint_of_states(tuple((f, s.st_size, s.st_mtime_ns) for f, s in states))


@functools.lru_cache(maxsize=8)
def _fingerprint_of_states(states: tuple[tuple[Path, int, int], ...]) -> str:
    """Contents are read once for many trials; size and time of change tell when to read again."""
    digests = [f"{file.name} {sha256_of_file(file)}" for file, _, _ in states]
    return "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest()
