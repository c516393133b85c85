"""The trainable parameters as one vector θ, which a step perturbs, restores and moves."""

from kerzoo.weights.base import Factors, Weights, pair
from kerzoo.weights.flat import FlatWeights, InPlaceWeights, MasterWeights
from kerzoo.weights.precision import (
    DRIFT_SPREAD,
    PRECISIONS,
    Precision,
    check_precision,
    flatten,
    measure_drift,
)
from kerzoo.weights.sharded import ShardedWeights

__all__ = [
    "DRIFT_SPREAD",
    "PRECISIONS",
    "Factors",
    "FlatWeights",
    "InPlaceWeights",
    "MasterWeights",
    "Precision",
    "ShardedWeights",
    "Weights",
    "check_precision",
    "flatten",
    "measure_drift",
    "pair",
]
