"""The contract of a model source."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerzoo.models.folder import files_of_model, fingerprint_of_files, is_masked, read_folder
from kerzoo.models.sizes import ModelSizes
from kerzoo.progress import Progress, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")
SIZES = (
    "layer_parameters",
    "head_parameters",
    "embedding_size",
    "key_value_size",
    "feedforward_size",
)
"""Sizes that follow from the others where they are null; they decide no number of a run."""


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, without gradients and without a key-value cache.

    Attributes:
        model: A causal or masked language model on its device, or on several; `model.device` is
            then that of the embeddings, which inputs go to.
        tokenizer: Its tokenizer.
        revision: What was loaded, as in `ModelSource.fingerprint`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str

    @property
    def is_spread(self) -> bool:
        """Whether the weights lie on several devices."""
        return len({parameter.device for parameter in self.model.parameters()}) > 1

    @property
    def is_causal(self) -> bool:
        """Whether a position sees those before it alone; a masked language model sees all."""
        return not type(self.model).__name__.endswith("ForMaskedLM")

    @property
    def pad_token_id(self) -> int:
        """The token that fills up a batch: the tokenizer's own, or EOS, or else token 0.

        Nothing that is scored sees the padding, so that any token will do for which the model has
        an embedding; some tokenizers name one for which it has none.
        """
        embeddings: Any = self.model.get_input_embeddings()
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if isinstance(token, int) and token < embeddings.weight.shape[0]:
                return token
        return 0

    @property
    def num_positions(self) -> int | None:
        """The longest input in tokens; None where the config sets no bound.

        RoBERTa counts positions from padding_idx + 1 on, and its config counts those that are left
        out as well.
        """
        from torch import nn

        total: int | None = getattr(self.model.config, "max_position_embeddings", None)
        if total is None:
            return None
        for name, module in self.model.named_modules():
            is_table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
            if is_table and module.padding_idx is not None:
                return total - (int(module.padding_idx) + 1)
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSource(abc.ABC):
    """The contract: where a model comes from. Building one reads nothing and imports no torch.

    Args:
        name: As in records and tables.
        dtype: Of the weights: float32, bfloat16 or float16.
        num_parameters: For estimates of memory.
        num_layers: For estimates of cost.
        hidden_size: For estimates of cost.
        path: A local Hugging Face folder that is read instead, or null.
        layer_parameters: Of one layer; null is OPT's and RoBERTa's number for this hidden_size.
        head_parameters: Of the output layer; null is all that is outside the layers.
        embedding_size: Width of the token embeddings; null is hidden_size.
        key_value_size: Width of keys and values; null is hidden_size.
        feedforward_size: Width inside a layer's second half; null is 4 · hidden_size.

    Raises:
        ValueError: For a value outside its range.
    """

    name: str
    dtype: str
    num_parameters: int
    num_layers: int
    hidden_size: int
    path: str | None = None
    layer_parameters: int | None = None
    head_parameters: int | None = None
    embedding_size: int | None = None
    key_value_size: int | None = None
    feedforward_size: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        for name in ("num_parameters", "num_layers", "hidden_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer ≥ 1, got {value!r}")
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be an integer ≥ 1 or null, got {value!r}")

    @property
    def sizes(self) -> ModelSizes:
        """What the model's parameters are counted from."""
        hidden = self.hidden_size
        layer = self.layer_parameters or 12 * hidden**2 + 13 * hidden
        outside = max(1, self.num_parameters - self.num_layers * layer)
        return ModelSizes(
            num_parameters=self.num_parameters,
            num_layers=self.num_layers,
            hidden_size=hidden,
            layer_parameters=layer,
            head_parameters=self.head_parameters or outside,
            embedding_size=self.embedding_size or hidden,
            key_value_size=self.key_value_size or hidden,
            feedforward_size=self.feedforward_size or 4 * hidden,
        )

    def fingerprint(self) -> str:
        """Identity of the weights, the same on every machine; needs no network.

        Returns:
            For a local folder "sha256:…" over its config, tokenizer and weights; else what the
            source says.

        Raises:
            ValueError: If the local folder is not a model's.
        """
        if self.path is None:
            return self.source_fingerprint()
        return fingerprint_of_files(files_of_model(self.path))

    def check_available(self) -> None:
        """See whether the model can be loaded here; loads and downloads nothing.

        Raises:
            ValueError: Saying what was looked for where, and the settings that help.
        """
        if self.path is None:
            self.check_source()
        else:
            files_of_model(self.path)
            is_masked(Path(self.path).expanduser())

    def load(
        self, device: str, progress: Progress = no_progress, num_devices: int = 1
    ) -> LoadedModel:
        """Load model and tokenizer.

        Nothing is unpickled beyond tensors and no code that comes with a model is run.

        Args:
            device: "cpu" or "cuda".
            progress: Told about downloads and conversions.
            num_devices: GPUs over which the layers are spread evenly, the first of those that are
                visible to this process.

        Raises:
            ValueError: If the model cannot be had, or its folder is not a model's.
        """
        from kerzoo.models.linear import compute_by_onednn

        if num_devices < 1 or (num_devices > 1 and device != "cuda"):
            raise ValueError(
                f"num_devices must be 1, or more with device cuda, got {num_devices} on {device}"
            )
        if self.path is None:
            model, tokenizer = self.load_source(progress, num_devices)
        else:
            files_of_model(self.path)
            folder = Path(self.path).expanduser()
            model, tokenizer = read_folder(folder, self.dtype, num_devices)
        if num_devices == 1:
            model.to(device)  # type: ignore[arg-type]
        if device == "cpu":
            compute_by_onednn(model)
        model.train(False).requires_grad_(False)
        model.config.use_cache = False
        return LoadedModel(model, tokenizer, self.fingerprint())

    @abc.abstractmethod
    def source_fingerprint(self) -> str:
        """`fingerprint` where no path is set."""

    @abc.abstractmethod
    def check_source(self) -> None:
        """`check_available` where no path is set."""

    @abc.abstractmethod
    def load_source(
        self, progress: Progress, num_devices: int
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer where no path is set.

        Args:
            progress: Told about downloads and conversions.
            num_devices: With 1 the model is left on the CPU, with more it is spread over GPUs.
        """
