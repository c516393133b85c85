"""Data, a cache and a loaded model that many integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_trials import trial_config, write_sst2

from kerzoo.models import LoadedModel
from kerzoo.options import TrialOptions
from kerzoo.tasks import LabelWordSplit


@pytest.fixture(scope="session")
def sst2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `stsa.binary.train` and `stsa.binary.dev`."""
    return write_sst2(tmp_path_factory.mktemp("sst2"))


@pytest.fixture(scope="session")
def cache_of_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(cache_of_session: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KERZOO_CACHE names a folder of this test session."""
    monkeypatch.setenv("KERZOO_CACHE", str(cache_of_session))
    return cache_of_session


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def loaded(sst2: Path) -> LoadedModel:
    """opt-tiny, made afresh."""
    return TrialOptions.from_config(trial_config(sst2)).model.load("cpu")


@pytest.fixture(scope="session")
def split(sst2: Path) -> LabelWordSplit:
    """The training examples; their lengths differ."""
    options = TrialOptions.from_config(trial_config(sst2))
    split = options.task.encode(options.model.load("cpu").tokenizer, "train")
    assert isinstance(split, LabelWordSplit)
    return split
