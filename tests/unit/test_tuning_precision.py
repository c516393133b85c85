"""The precision of what a trial trains is judged when it is planned."""

from __future__ import annotations

import pytest
from tiny_trials import LORA, MODEL, trial_config

from kerzoo.options import TrialOptions

HEAD = {"_target_": "kerzoo.tuning.HeadTuning", "last_layers": 0}


def test_a_half_precision_head_is_not_updated_in_place() -> None:
    model = MODEL | {"dtype": "float16"}
    with pytest.raises(ValueError, match="precision"):
        TrialOptions.from_config(
            trial_config("nowhere", model=model, tuning=HEAD, precision="inplace")
        )


def test_the_adapters_of_a_half_precision_model_are_updated_in_place() -> None:
    model = MODEL | {"dtype": "float16"}
    TrialOptions.from_config(trial_config("nowhere", model=model, tuning=LORA, precision="inplace"))
