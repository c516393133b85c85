"""Models on the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kerzoo.hub import check_commit, check_repository
from kerzoo.models.base import ModelSource, read_folder
from kerzoo.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_INSTEAD = (
    "set model.path=DIR (a local Hugging Face folder), or rehearse with model=opt-tiny "
    "name=rehearsal (a stand-in made from a config)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModel(ModelSource):
    """A causal language model on the hub, at a pinned commit.

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
        check_repository(self.hub_id, self.revision, "model", _INSTEAD)

    def load_source(self, progress: Progress) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """From the hub's cache, downloaded into it where needed."""
        self.check_source()
        return read_folder(self.hub_id, self.dtype, revision=self.revision)
