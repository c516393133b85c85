"""Momentum: how the clipped estimates of a run's steps become movements of θ.

A momentum starts with the weights and is then handed each step's gradient estimate
g_t = Σ_i c_i·u_i as keys and coefficients. What it remembers is its state, so that a run resumes
exactly.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from kerzoo.weights import Factors, FlatWeights, Weights, pair

REPLAY_TOLERANCE = 2.0**-24
"""Past gradients whose weight fell below fp32's resolution are forgotten."""


class Momentum(abc.ABC):
    """The contract.

    Attributes:
        num_copies: fp32 copies of the trainable parameters that it keeps.
    """

    num_copies: int = 0

    @abc.abstractmethod
    def start(self, weights: Weights) -> MomentumState:
        """The state at the beginning of a run."""


class MomentumState(abc.ABC):
    """A momentum at work."""

    @property
    def kind(self) -> str:
        """What a state must be of to be taken up again."""
        return type(self).__name__

    @abc.abstractmethod
    def update_(
        self, keys: Sequence[int], coefficients: Sequence[Factors], learning_rates: Factors
    ) -> None:
        """Move θ by one step; whoever calls it restores the weights.

        Args:
            keys: Of the directions u_i. Length: n.
            coefficients: c_i, one for all tensors or one for each. Length: n.
            learning_rates: η_t, one for all tensors or one for each.
        """

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes up again."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


@dataclasses.dataclass(frozen=True)
class NoMomentum(Momentum):
    """θ ← θ − η·g."""

    def start(self, weights: Weights) -> MomentumState:
        """Nothing to remember."""
        return _Plain(weights)


@dataclasses.dataclass(frozen=True)
class HeavyBall(Momentum):
    """m ← decay·m + g, θ ← θ − η·m.

    Args:
        decay: In (0, 1).
        memory: "buffer" keeps m, one fp32 copy of the trainable parameters; "replay" keeps the
            coefficients of the past steps and makes their directions again, which costs memory
            for nothing and a pass of noise for each of the last log(2⁻²⁴)/log(decay) directions.

    Source: Polyak 1964; replay as in Malladi et al. 2023, arXiv 2305.17333.
    """

    decay: float = 0.9
    memory: Literal["buffer", "replay"] = "buffer"

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"decay must lie in (0, 1), got {self.decay}")
        if self.memory not in ("buffer", "replay"):
            raise ValueError(f"memory must be buffer or replay, got {self.memory!r}")

    @property
    def num_copies(self) -> int:  # type: ignore[override]
        """One for the buffer."""
        return 1 if self.memory == "buffer" else 0

    def start(self, weights: Weights) -> MomentumState:
        """m = 0."""
        if self.memory == "buffer":
            return _start_on_each(weights, lambda shard: _Buffer(shard, self.decay))
        return _Replay(weights, self.decay)


@dataclasses.dataclass(frozen=True)
class CoupledCopy(Momentum):
    """Accelerated stochastic approximation: a second copy of θ, coupled in by β_k = 1 + k/6.

        z_k = x_k/β_k + (1 − 1/β_k)·y_k        the point that is perturbed and evaluated
        x_{k+1} = x_k − η·g(z_k)
        y_{k+1} = x_{k+1}/β_k + (1 − 1/β_k)·y_k

    The released code of KerZOO couples a copy of the parameters in this way, which its published
    equation does not mention; only a description of that code could be seen, so β_k is that of
    the literature.

    Source: Lan 2012; β_k from Woodworth & Srebro 2021, arXiv 2106.02720.
    """

    num_copies = 2

    def start(self, weights: Weights) -> MomentumState:
        """x = y = z = θ."""
        return _start_on_each(weights, _Coupled)


def _start_on_each(
    weights: Weights, start: Callable[[FlatWeights], MomentumState]
) -> MomentumState:
    """A momentum that keeps vectors of its own, beside each shard of θ."""
    states = [start(shard) for shard in weights.shards]
    return states[0] if len(states) == 1 else _Sharded(weights, states)


class _Sharded(MomentumState):
    """A state for each shard of θ; its state_dict is that of one flat θ."""

    def __init__(self, weights: Weights, states: Sequence[MomentumState]) -> None:
        self.weights = weights
        self.states = states

    @property
    def kind(self) -> str:
        return self.states[0].kind

    def update_(
        self, keys: Sequence[int], coefficients: Sequence[Factors], learning_rates: Factors
    ) -> None:
        share = self.weights.share
        parts = zip(self.states, share(learning_rates), *map(share, coefficients), strict=True)
        for state, rates, *own in parts:
            state.update_(keys, own, rates)

    def state_dict(self) -> dict[str, Any]:
        parts = [state.state_dict() for state in self.states]
        return {
            name: self.weights.join([part[name] for part in parts])
            if isinstance(value, torch.Tensor)
            else value
            for name, value in parts[0].items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        parts = {
            name: self.weights.cut(value)
            if isinstance(value, torch.Tensor)
            else [value] * len(self.states)
            for name, value in state.items()
        }
        for index, own in enumerate(self.states):
            own.load_state_dict({name: values[index] for name, values in parts.items()})


class _Plain(MomentumState):
    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def update_(
        self, keys: Sequence[int], coefficients: Sequence[Factors], learning_rates: Factors
    ) -> None:
        for key, factors in zip(keys, coefficients, strict=True):
            self.weights.move_(key, tuple(-rate * c for rate, c in pair(learning_rates, factors)))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _Buffer(MomentumState):
    def __init__(self, weights: FlatWeights, decay: float) -> None:
        self.weights = weights
        self.decay = decay
        self.buffer = torch.zeros(len(weights), device=weights.working.device)

    def update_(
        self, keys: Sequence[int], coefficients: Sequence[Factors], learning_rates: Factors
    ) -> None:
        self.buffer.mul_(self.decay)
        for key, factors in zip(keys, coefficients, strict=True):
            self.weights.add_(self.buffer, key, factors)
        theta = self.weights.theta
        for where in self.weights.noise.chunks:
            for piece, rate in self.weights.pieces(where, learning_rates):
                moved = torch.add(theta[piece], self.buffer[piece], alpha=-rate)  # rounded below
                theta[piece].copy_(moved)

    def state_dict(self) -> dict[str, Any]:
        return {"buffer": self.buffer.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.buffer.copy_(state["buffer"])


class _Replay(MomentumState):
    def __init__(self, weights: Weights, decay: float) -> None:
        self.weights = weights
        self.decay = decay
        window = math.ceil(math.log(REPLAY_TOLERANCE) / math.log(decay))
        self.steps: collections.deque[Sequence[tuple[int, Factors]]] = collections.deque(
            maxlen=window
        )

    def update_(
        self, keys: Sequence[int], coefficients: Sequence[Factors], learning_rates: Factors
    ) -> None:
        self.steps.append(tuple(zip(keys, coefficients, strict=True)))
        for age, step in enumerate(reversed(self.steps)):
            for key, factors in step:
                rates = pair(learning_rates, factors)
                self.weights.move_(key, tuple(-rate * self.decay**age * c for rate, c in rates))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps.clear()
        self.steps.extend(state["steps"])


class _Coupled(MomentumState):
    def __init__(self, weights: FlatWeights) -> None:
        self.weights = weights
        self.step = 0
        self.x = weights.theta.float().clone()
        self.y = self.x.clone()

    def update_(
        self, keys: Sequence[int], coefficients: Sequence[Factors], learning_rates: Factors
    ) -> None:
        for key, factors in zip(keys, coefficients, strict=True):
            moves = tuple(-rate * c for rate, c in pair(learning_rates, factors))
            self.weights.add_(self.x, key, moves)
        self.y.lerp_(self.x, 1.0 / _coupling(self.step))
        self.step += 1
        self.weights.theta.copy_(torch.lerp(self.y, self.x, 1.0 / _coupling(self.step)))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "x": self.x.clone(), "y": self.y.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        self.x.copy_(state["x"])
        self.y.copy_(state["y"])


def _coupling(step: int) -> float:
    """β_k."""
    return 1.0 + step / 6.0
