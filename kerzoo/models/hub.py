"""Models on the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from kerzoo.hub import check_commit, check_served
from kerzoo.models.base import ModelSource
from kerzoo.models.folder import is_masked, read_folder
from kerzoo.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TEXT_FILES = ("*.json", "*.txt", "*.model")
_INSTEAD = (
    "set model.path=DIR (a local Hugging Face folder), or rehearse with model=opt-tiny "
    "name=rehearsal (a stand-in made from a config; roberta-tiny for a masked model)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModel(ModelSource):
    """A causal or masked language model on the hub, at a pinned commit.

    Args:
        hub_id: `owner/name`.
        revision: The commit.

    Raises:
        ValueError: For a revision that is not a full commit.
    """

    hub_id: str
    revision: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_commit(self.revision)

    def source_fingerprint(self) -> str:
        """Hub id and commit."""
        return f"{self.hub_id}@{self.revision}"

    def check_source(self) -> None:
        """In the hub's cache on this machine, or on the hub."""
        if _has_weights(self._snapshot()):
            is_masked(self._snapshot())
        else:
            check_served(self.hub_id, self.revision, "model", "config.json", _INSTEAD)

    def load_source(
        self, progress: Progress, num_devices: int
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """From the hub's cache, downloaded into it where needed; safetensors where there are."""
        from huggingface_hub import snapshot_download

        self.check_source()
        for weights in ("*.safetensors", "pytorch_model*.bin"):
            patterns = [*_TEXT_FILES, weights]
            folder = Path(
                snapshot_download(self.hub_id, revision=self.revision, allow_patterns=patterns)
            )
            if _has_weights(folder):
                break
        return read_folder(folder, self.dtype, num_devices)

    def _snapshot(self) -> Path:
        from huggingface_hub import constants

        repository = f"models--{self.hub_id.replace('/', '--')}"
        return Path(constants.HF_HUB_CACHE) / repository / "snapshots" / self.revision


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
