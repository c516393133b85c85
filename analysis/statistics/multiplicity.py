"""Several tests at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def adjust_holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p-values: those ≤ α are rejected with a family-wise error ≤ α.

    p₍ᵢ₎ becomes max over j ≤ i of min(1, (m − j + 1) · p₍ⱼ₎). NaN stays NaN and counts for
    nothing in m.

    Args:
        p_values: Shape (…, tests).

    Returns:
        The same shape.

    >>> adjust_holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]

    Source:
        Holm, Scand. J. Stat. 6 (1979).
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, axis=-1)  # NaN last
    ordered = np.take_along_axis(values, order, axis=-1)
    number = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    factors = np.maximum(number - np.arange(values.shape[-1]), 1)
    adjusted = np.maximum.accumulate(np.minimum(1.0, factors * ordered), axis=-1)
    result = np.empty_like(values)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result
