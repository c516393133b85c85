"""KerZOO as a `torch.optim.Optimizer` for anybody's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from kerzoo.estimator import Estimate, Estimator, apply_updates
from kerzoo.kernels import Kernel, PolynomialKernel
from kerzoo.noise import Gaussian, Perturbation
from kerzoo.schedules import Bandwidth, ConstantBandwidth
from kerzoo.weights import FlatWeights


class KerZOO(torch.optim.Optimizer):
    """Kernel-weighted zeroth-order SGD: θ ← θ − η·g with `Estimator`'s g.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = KerZOO(model.parameters(), lr=1e-2, num_steps=10)
    >>> x = torch.ones(4, 2)
    >>> loss = optimizer.step(lambda: model(x).square().mean())
    >>> optimizer.last_step
    1

    The closure computes the loss of one batch and calls no `backward`. The step counter lives in
    the parameter group, so `state_dict()` and `load_state_dict()` resume the run exactly.
    Parameters written to from outside between two steps are taken over as they are.

    Args:
        params: Trainable parameters: one group, one device, one dtype.
        lr: Learning rate η ≥ 0.
        kernel: K and the law of r; by default the uniform kernel of order 4 of the paper.
            `ConstantKernel()` makes this MeZO.
        perturbation_scale: ε > 0.
        bandwidth: By default r is drawn from the whole interval.
        perturbation: The law of the directions.
        num_directions: n.
        num_steps: Length of the bandwidth's schedule.
        seed: Of directions and radii.
        num_threads: For the noise, on the CPU; changes no bit.

    Raises:
        ValueError: For a value outside its range, several parameter groups, dtypes or devices.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        kernel: Kernel | None = None,
        perturbation_scale: float = 1e-3,
        bandwidth: Bandwidth | None = None,
        perturbation: Perturbation | None = None,
        num_directions: int = 1,
        num_steps: int = 1,
        seed: int = 0,
        num_threads: int = 1,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be ≥ 0, got {lr}")
        super().__init__(params, {"lr": lr, "step": 0})
        if len(self.param_groups) > 1:
            raise ValueError(f"params must be one group, got {len(self.param_groups)} groups")
        self.estimator = Estimator(
            kernel or PolynomialKernel("uniform", 4),
            bandwidth or ConstantBandwidth(1.0),
            perturbation_scale,
            num_directions,
            num_steps,
            seed,
        )
        self.weights = FlatWeights(
            self.param_groups[0]["params"], perturbation or Gaussian(), num_threads
        )

    @property
    def last_step(self) -> int:
        """How many updates were made."""
        return int(self.param_groups[0]["step"])

    @torch.no_grad()
    def estimate(self, closure: Callable[[], Any]) -> Estimate:
        """Measure the losses of the next step; changes nothing."""
        self.weights.adopt_()
        return self.estimator.estimate(self.weights, closure, self.last_step)

    @torch.no_grad()
    def apply(self, estimate: Estimate) -> tuple[float, ...]:
        """Make the update that an estimate asks for.

        Returns:
            The factors −η·coefficient of the directions: with the seed and the step, what replays
            this update bit for bit.

        Raises:
            ValueError: If the estimate belongs to another step, or is not finite. The weights
                are then as they were.
        """
        group = self.param_groups[0]
        if estimate.step != group["step"] or estimate.seed != self.estimator.seed:
            raise ValueError(
                f"estimate must belong to step {group['step']} of seed {self.estimator.seed}, got "
                f"step {estimate.step} of seed {estimate.seed}"
            )
        if estimate.diverged:
            raise ValueError(f"estimate must be finite, got losses {estimate.losses}")
        updates = tuple(-float(group["lr"]) * c for c in estimate.coefficients)
        apply_updates(self.weights, estimate.seed, estimate.step, updates)
        group["step"] += 1
        return updates

    @torch.no_grad()
    def replay(self, updates: tuple[float, ...]) -> None:
        """Make an update that was logged before, without a forward pass."""
        group = self.param_groups[0]
        apply_updates(self.weights, self.estimator.seed, group["step"], updates)
        group["step"] += 1

    def step(self, closure: Callable[[], Any] | None = None) -> float:  # type: ignore[override]
        """Estimate and apply.

        Args:
            closure: The loss of one batch, as a number or a tensor with one element.

        Returns:
            The mean of the 2n perturbed losses.

        Raises:
            ValueError: Without a closure, or when a loss is not finite (weights unchanged).
        """
        if closure is None:
            raise ValueError("closure is required: a zeroth-order step evaluates the loss itself")
        estimate = self.estimate(closure)
        self.apply(estimate)
        return estimate.loss
