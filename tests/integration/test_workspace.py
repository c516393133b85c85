"""What a workspace asks of a model before a trial begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_trials import trial_config

from kerzoo.models import TinyOpt
from kerzoo.options import TrialOptions
from kerzoo.progress import no_progress
from kerzoo.workspace import Workspace


def test_prompts_longer_than_the_models_positions_are_refused(
    sst2: Path,
) -> None:
    config = trial_config(sst2)
    config["task"]["max_length"] = 65
    refused = r"task\.max_length must not exceed the 64 positions of opt-tiny, got 65"
    options = TrialOptions.from_config(config)
    with pytest.raises(ValueError, match=refused), Workspace().open(options):
        pass


def test_a_workspace_spreads_models_for_gpus_alone(
    sst2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    load = TinyOpt.load

    def pretend(
        self: TinyOpt, device: str, progress: Any = no_progress, num_devices: int = 1
    ) -> Any:
        asked.append((device, num_devices))
        return load(self, "cpu")

    monkeypatch.setattr(TinyOpt, "load", pretend)
    workspace = Workspace(num_devices=2)
    for device in ("cpu", "cuda"):
        workspace.load(TrialOptions.from_config(trial_config(sst2, device=device)))
    assert asked == [("cpu", 1), ("cuda", 2)]
