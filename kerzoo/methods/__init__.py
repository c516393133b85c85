"""Methods: what a trial does with its model. Zeroth order, and the baselines beside it."""

from kerzoo.methods.base import Learner, Method
from kerzoo.methods.first_order import FirstOrder
from kerzoo.methods.linear_probe import LinearProbe
from kerzoo.methods.no_training import NoTraining
from kerzoo.methods.zeroth_order import ZerothOrder

__all__ = ["FirstOrder", "Learner", "LinearProbe", "Method", "NoTraining", "ZerothOrder"]
