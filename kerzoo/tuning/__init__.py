"""Which parameters move: the model's own, or adapters that PEFT keeps."""

from kerzoo.tuning.base import Attached, Tuning
from kerzoo.tuning.full import FullTuning
from kerzoo.tuning.head import HeadTuning
from kerzoo.tuning.ia3 import IA3
from kerzoo.tuning.layers import decoder_layers, first_trainable_layer, forward_replaced
from kerzoo.tuning.lora import LoRA
from kerzoo.tuning.nothing import NoTuning
from kerzoo.tuning.prefix import PrefixTuning
from kerzoo.tuning.prompt import PromptTuning
from kerzoo.tuning.stacked import StackedAdapters

__all__ = [
    "IA3",
    "Attached",
    "FullTuning",
    "HeadTuning",
    "LoRA",
    "NoTuning",
    "PrefixTuning",
    "PromptTuning",
    "StackedAdapters",
    "Tuning",
    "decoder_layers",
    "first_trainable_layer",
    "forward_replaced",
]
