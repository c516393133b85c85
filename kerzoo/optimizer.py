"""KerZOO as a `torch.optim.Optimizer` for anybody's own training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from kerzoo.clipping import Clipping, NoClipping
from kerzoo.estimator import Estimate, Estimator, RadiusScope
from kerzoo.kernels import Kernel, PolynomialKernel
from kerzoo.momentum import CoupledCopy, Momentum, NoMomentum
from kerzoo.noise import Gaussian, Perturbation
from kerzoo.points import evaluation_of
from kerzoo.schedules import Bandwidth, ConstantSchedule, Schedule
from kerzoo.weights import Factors, Precision, check_precision, flatten

GROUP_OPTIONS = frozenset({"params", "lr", "weight_decay"})


class KerZOO(torch.optim.Optimizer):
    """Kernel-weighted zeroth-order SGD, by default θ ← θ − η·g with `Estimator`'s g.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = KerZOO(model.parameters(), lr=1e-2)
    >>> x = torch.ones(4, 2)
    >>> loss = optimizer.step(lambda: model(x).square().mean())
    >>> optimizer.last_step
    1

    The closure computes the loss of one batch and calls no `backward`. In full, step t is

        c_i = clip( Σ_k [L(θ + ε_t r_k u_i) − L(θ − ε_t r_k u_i)] / (2ε_t) · K_d(r_k) / n )
        θ ← (1 − η_t·w)·θ,   then   θ ← θ − η_t·Σ_i c_i·u_i   (or what the momentum makes of it)

    with η_t = lr · learning_rate_schedule(t) and weight decay w. As in MeZO's code, weight decay
    skips biases and norms: tensors with fewer than two dimensions.

    `state_dict()` and `load_state_dict()`, together with the model's, resume a run bit for bit;
    in half precision the fp32 master copy is part of it. Parameters written to from outside
    between two steps are taken over as they are (but `CoupledCopy` has copies of its own), and so
    is a changed `lr` of a group, so that torch's learning-rate schedulers work too.

    Args:
        params: Trainable parameters of one dtype, or groups of them; a group may have its own
            `lr` and `weight_decay`. On one device, or on several between which the model's forward
            carries its activations.
        lr: Learning rate η ≥ 0.
        kernel: K and the law of r; by default the uniform kernel of order 4 of the paper.
            `ConstantKernel()` makes this MeZO.
        perturbation_scale: ε > 0.
        bandwidth: By default r is drawn from the whole interval.
        perturbation: The law of the directions; by default Gaussian.
        num_directions: n.
        num_steps: T, the length of the schedules; None where none changes.
        seed: Of directions and radii.
        r_scope: "step" draws one r for all parameters, "tensor" one for each tensor.
        clipping: By default none.
        weight_decay: w ≥ 0.
        momentum: By default none.
        learning_rate_schedule: By default constant.
        perturbation_scale_schedule: By default constant.
        precision: "master", "inplace" or "inplace_half"; see `kerzoo.weights`.
        num_threads: For the noise, on the CPU; changes no bit.
        points_per_forward: Points at which a call of the closure finds the loss. Of more than one
            they are not written to the model: the closure is given their parameters, and returns
            a loss for each (`kerzoo.points.Stacked`).
        lazy: Leave out the passes over the weights that only others need: what is written to the
            parameters from outside goes unseen, and they hold θ only after `settle()`.

    Raises:
        ValueError: For a value outside its range, a group with options of another kind, several
            dtypes, or half precision in place that was not asked for by name.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        kernel: Kernel | None = None,
        perturbation_scale: float = 1e-3,
        bandwidth: Bandwidth | None = None,
        perturbation: Perturbation | None = None,
        num_directions: int = 1,
        num_steps: int | None = None,
        seed: int = 0,
        *,
        r_scope: RadiusScope = "step",
        clipping: Clipping | None = None,
        weight_decay: float = 0.0,
        momentum: Momentum | None = None,
        learning_rate_schedule: Schedule | None = None,
        perturbation_scale_schedule: Schedule | None = None,
        precision: Precision = "master",
        num_threads: int = 1,
        points_per_forward: int = 1,
        lazy: bool = False,
    ) -> None:
        groups: list[Any] = [dict(g) if isinstance(g, dict) else g for g in params]
        _check_groups(groups, lr, weight_decay)
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "step": 0})
        self.estimator = Estimator(
            kernel or PolynomialKernel("uniform", 4),
            bandwidth or Bandwidth(),
            perturbation_scale,
            num_directions,
            num_steps,
            seed,
            perturbation_scale_schedule or ConstantSchedule(),
            r_scope,
        )
        self.clipping = clipping or NoClipping()
        self.learning_rate_schedule = learning_rate_schedule or ConstantSchedule()
        self.learning_rate_schedule.factor_at(0, num_steps)  # raises where T is missing
        parameters = [p for group in self.param_groups for p in group["params"]]
        check_precision(precision, parameters[0].dtype, perturbation_scale)
        self.weights = flatten(parameters, perturbation or Gaussian(), precision, num_threads)
        self.evaluation = evaluation_of(points_per_forward)
        self.lazy = lazy
        if isinstance(momentum, CoupledCopy) and any(self._per_tensor("weight_decay")):
            raise ValueError("weight_decay must be 0 with CoupledCopy: it has no decayed form")
        self._momentum = (momentum or NoMomentum()).start(self.weights)

    @property
    def last_step(self) -> int:
        """How many updates were made."""
        return int(self.param_groups[0]["step"])

    @torch.no_grad()
    def estimate(self, closure: Callable[..., Any]) -> Estimate:
        """Measure the losses of the next step; θ is afterwards as before."""
        self._adopt()
        return self.estimator.estimate(
            self.weights, closure, self.last_step, self.lazy, self.evaluation
        )

    @torch.no_grad()
    def apply(self, estimate: Estimate) -> None:
        """Make the update that an estimate asks for.

        Raises:
            ValueError: If the estimate belongs to another step, or is not finite. The weights
                are then as they were.
        """
        step = self.last_step
        if estimate.step != step or estimate.seed != self.estimator.seed:
            raise ValueError(
                f"estimate must belong to step {step} of seed {self.estimator.seed}, got "
                f"step {estimate.step} of seed {estimate.seed}"
            )
        if estimate.diverged:
            raise ValueError(f"estimate must be finite, got losses {estimate.losses}")
        coefficients = self.clipping.clip(estimate, self.weights)
        factor = self.learning_rate_factor_at(step)
        rates = tuple(rate * factor for rate in self._per_tensor("lr"))
        self._decay(rates)
        self._momentum.update_(estimate.keys, coefficients, rates)
        for group in self.param_groups:
            group["step"] = step + 1
        if not self.lazy:
            self.settle()

    @torch.no_grad()
    def replay(self, losses: Sequence[float]) -> Estimate:
        """Make the step again that gave these losses, bit for bit, without a forward pass."""
        self._adopt()
        visits = self.estimator.points(self.weights, self.last_step)
        self.evaluation.retrace(self.weights, visits)
        if not self.lazy:
            self.settle()
        num_tensors = len(self.weights.sizes)
        estimate = self.estimator.from_losses(losses, self.last_step, num_tensors)
        self.apply(estimate)
        return estimate

    def step(self, closure: Callable[..., Any] | None = None) -> float:  # type: ignore[override]
        """Estimate and apply.

        Args:
            closure: The loss of one batch, as a number or a tensor with one element; with
                `points_per_forward`, of each point that it is given.

        Returns:
            The mean of the perturbed losses.

        Raises:
            ValueError: Without a closure, or when a loss is not finite (weights unchanged).
        """
        if closure is None:
            raise ValueError("closure is required: a zeroth-order step evaluates the loss itself")
        estimate = self.estimate(closure)
        self.apply(estimate)
        return estimate.loss

    @torch.no_grad()
    def settle(self) -> None:
        """Let the parameters hold θ."""
        self.weights.restore_()

    def learning_rate_factor_at(self, step: int) -> float:
        """f(t) of the learning rate's schedule."""
        return self.learning_rate_schedule.factor_at(step, self.estimator.num_steps)

    def state_dict(self) -> dict[str, Any]:
        """torch's state, and what the momentum remembers and the master copy holds beyond it."""
        momentum, shards = self._momentum, self.weights.shards
        own: dict[str, Any] = {"kind": momentum.kind, "momentum": momentum.state_dict()}
        if shards[0].theta.dtype != shards[0].working.dtype:
            own["theta"] = self.weights.join([shard.theta for shard in shards])
        return {**super().state_dict(), "kerzoo": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, on as many devices as may be; load the model's own state first.

        Raises:
            ValueError: If the state is not one of this class with the same kind of momentum.
        """
        kind = self._momentum.kind
        if state_dict.get("kerzoo", {}).get("kind") != kind:
            raise ValueError(f"state_dict must be that of a KerZOO with the momentum state {kind}")
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "kerzoo"})
        own = state_dict["kerzoo"]
        self.weights.adopt_()
        if "theta" in own:
            for shard, theta in zip(
                self.weights.shards, self.weights.cut(own["theta"]), strict=True
            ):
                shard.theta.copy_(theta)
            self.settle()
        self._momentum.load_state_dict(own["momentum"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only at construction: offsets, and with them the noise, follow from the parameters.

        Raises:
            ValueError: Afterwards.
        """
        if hasattr(self, "weights"):
            raise ValueError("parameter groups are fixed once the optimizer was made")
        super().add_param_group(param_group)

    def _adopt(self) -> None:
        """Take over what others wrote to the parameters, unless nobody does."""
        if not self.lazy:
            self.weights.adopt_()

    def _per_tensor(self, option: str) -> Factors:
        """A group option for each tensor."""
        return tuple(float(group[option]) for group in self.param_groups for _ in group["params"])

    def _decay(self, rates: Factors) -> None:
        """θ ← (1 − η_t·w)·θ for tensors of two and more dimensions."""
        decays = self._per_tensor("weight_decay")
        if not any(decays):
            return
        for tensor, rate, decay in zip(self.weights.tensors, rates, decays, strict=True):
            if tensor.dim() >= 2:
                tensor.mul_(1.0 - rate * decay)


def _check_groups(groups: Sequence[Any], lr: float, weight_decay: float) -> None:
    options = [{"lr": lr, "weight_decay": weight_decay}]
    options += [group for group in groups if isinstance(group, dict)]
    for group in options:
        if unknown := sorted(set(group) - GROUP_OPTIONS):
            raise ValueError(
                f"{unknown[0]} is no option of a parameter group; these are: lr, weight_decay"
            )
        for name in ("lr", "weight_decay"):
            value = group.get(name, 0.0)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be ≥ 0, got {value}")
