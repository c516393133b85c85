"""Models: from the hub, from a local folder, from PyPI, or made from a config."""

from kerzoo.models.base import LoadedModel, ModelSource
from kerzoo.models.hub import HubModel
from kerzoo.models.packaged import PackagedSmolLM2
from kerzoo.models.sizes import ModelSizes
from kerzoo.models.tiny import TinyOpt, TinyRoberta

__all__ = [
    "HubModel",
    "LoadedModel",
    "ModelSizes",
    "ModelSource",
    "PackagedSmolLM2",
    "TinyOpt",
    "TinyRoberta",
]
