"""No tuning: the model stays as it is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kerzoo.models import ModelSizes
from kerzoo.tuning.base import Attached, Tuning

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class NoTuning(Tuning):
    """Nothing moves: what methods attach that leave the model as it is."""

    last_layers = None
    changes_base_model = False

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """The model itself."""
        yield Attached({}, model)

    def count_parameters(self, sizes: ModelSizes) -> int:
        """None."""
        return 0
