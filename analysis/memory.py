"""Frames that several tables and figures share are computed once for each study."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import pandas as pd

from analysis.load import Study

P = ParamSpec("P")


def once_per_study(
    function: Callable[Concatenate[Study, P], pd.DataFrame],
) -> Callable[Concatenate[Study, P], pd.DataFrame]:
    """Remember what a function says of a study, as long as the study lives; callers get copies.

    Args:
        function: Of a study, which never changes, and of further arguments that can be hashed.
    """
    memory: weakref.WeakKeyDictionary[Study, dict[Any, pd.DataFrame]] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def remembering(study: Study, /, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        known = memory.setdefault(study, {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in known:
            known[key] = function(study, *args, **kwargs)
        return known[key].copy()

    return remembering
