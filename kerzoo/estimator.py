"""The kernel-weighted two-point estimate of the gradient, as an immutable result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from kerzoo.kernels import Kernel
from kerzoo.noise import derive_key, uniform_from_key
from kerzoo.points import Evaluation, Sequential
from kerzoo.schedules import Bandwidth, ConstantSchedule, Schedule, gain_at
from kerzoo.weights import Factors, Weights, pair

_LARGEST = 3.4028234e38
"""Of fp32."""

RadiusScope = Literal["step", "tensor"]
RADIUS_SCOPES: tuple[RadiusScope, ...] = ("step", "tensor")


@dataclasses.dataclass(frozen=True)
class Draw:
    """The radii of one loss difference, and their weights.

    Attributes:
        radii: r, one for all tensors or one for each.
        weights: K_d(r), likewise.
    """

    radii: Factors
    weights: Factors


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one step measured; with the seed, all that is needed to apply it.

    g = Σ_i coefficients[i] · u_i,   u_i = u(derive_key(seed, "directions", step, i))

    Attributes:
        seed: The run's seed.
        step: 0 for the first update.
        coefficients: Of each direction: Σ_k [L(θ + ε r_k u_i) − L(θ − ε r_k u_i)] / (2ε) ·
            K_d(r_k) / n, one for all tensors or one for each. Length: n directions.
        losses: L(θ + ε r_k u_i), L(θ − ε r_k u_i) for each difference k of each direction i in
            turn. Length: forward passes of a step.
    """

    seed: int
    step: int
    coefficients: tuple[Factors, ...]
    losses: tuple[float, ...]

    @property
    def keys(self) -> tuple[int, ...]:
        """Keys of the directions u_i."""
        count = len(self.coefficients)
        return tuple(derive_key(self.seed, "directions", self.step, i) for i in range(count))

    @property
    def loss(self) -> float:
        """The mean of the perturbed losses."""
        return math.fsum(self.losses) / len(self.losses)

    def mean_square(self, sizes: Sequence[int]) -> float:
        """Mean over directions of (n · coefficient)²; tensors with an r of their own by their size.

        Its expectation is the factor by which E|g|² exceeds |u|²: for noiseless linear losses
        gain² · V_s · |∇L|², with gain = E[rK].

        Args:
            sizes: Number of elements of each tensor.
        """
        n = len(self.coefficients)
        squares = [
            factors[0] ** 2
            if len(factors) == 1
            else math.fsum(c * c * size for c, size in zip(factors, sizes, strict=True))
            / sum(sizes)
            for factors in self.coefficients
        ]
        return n * math.fsum(squares)

    @property
    def diverged(self) -> bool:
        """Whether a loss or a coefficient is not finite in fp32; it must not be applied then."""
        numbers = [*self.losses, *(c for factors in self.coefficients for c in factors)]
        return not all(abs(number) <= _LARGEST for number in numbers)


@dataclasses.dataclass(frozen=True)
class Estimator:
    """g = (1/n) Σ_i Σ_k [L(θ + ε_t r_k u_i) − L(θ − ε_t r_k u_i)] / (2ε_t) · K_d(r_k) · u_i.

    Most kernels measure one difference k on a direction. With `r_scope` "tensor" each parameter
    tensor b draws its own r_b: the points are θ_b ± ε·r_b·u_b and tensor b's weight is K_d(r_b).
    About a third of the bias that the kernel cancels is then left.

    Args:
        kernel: K and the law of r.
        bandwidth: d and whether K is rescaled to it; ignored by a kernel without a bandwidth.
        perturbation_scale: ε > 0 at the first step.
        num_directions: n ≥ 1.
        num_steps: T, the length of the schedules; None where none changes.
        seed: The run's seed.
        perturbation_scale_schedule: ε_t = ε · f(t).
        r_scope: "step" or "tensor".

    Raises:
        ValueError: For a value outside its range, or a schedule without `num_steps`.

    Source: Mi et al. 2025, arXiv 2505.18886; with K ≡ 1, r ≡ 1 Malladi et al. 2023, 2305.17333.
    """

    kernel: Kernel
    bandwidth: Bandwidth
    perturbation_scale: float
    num_directions: int = 1
    num_steps: int | None = None
    seed: int = 0
    perturbation_scale_schedule: Schedule = dataclasses.field(default_factory=ConstantSchedule)
    r_scope: RadiusScope = "step"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.perturbation_scale) and self.perturbation_scale > 0):
            raise ValueError(f"perturbation_scale must be > 0, got {self.perturbation_scale}")
        if self.num_directions < 1:
            raise ValueError(f"num_directions must be at least 1, got {self.num_directions}")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must lie in [0, 2^63), got {self.seed}")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.r_scope not in RADIUS_SCOPES:
            raise ValueError(f"r_scope must be step or tensor, got {self.r_scope!r}")
        if not self.perturbation_scale_schedule.factor_at(1, 1) > 0:
            raise ValueError("perturbation_scale_schedule must have a floor > 0")
        self.gain_at(0)
        self.perturbation_scale_at(0)

    @property
    def forward_passes_per_step(self) -> int:
        """Two for each difference on each direction."""
        return 2 * self.kernel.num_nodes * self.num_directions

    def perturbation_scale_at(self, step: int) -> float:
        """ε_t."""
        factor = self.perturbation_scale_schedule.factor_at(step, self.num_steps)
        return self.perturbation_scale * factor

    def gain_at(self, step: int) -> float:
        """m(d_t) = E[r·K_d(r)]: what the mean of the estimate is multiplied by."""
        return gain_at(self.kernel, self.bandwidth, step, self.num_steps)

    def draw(self, step: int, direction: int, num_tensors: int = 1) -> tuple[Draw, ...]:
        """The differences to measure: a function of (seed, step, direction, tensor) alone.

        Args:
            step: 0 for the first update.
            direction: 0 … n − 1.
            num_tensors: How many tensors draw an r of their own, where they do.
        """
        key = derive_key(self.seed, "radii", step, direction)
        width = 1.0
        if self.kernel.has_bandwidth:
            width = self.bandwidth.half_width_at(step, self.num_steps)
        count = num_tensors if self.r_scope == "tensor" else 1
        drawn = [
            self.kernel.draw(uniform_from_key(key, tensor), width, self.bandwidth.rescale)
            for tensor in range(count)
        ]
        return tuple(
            Draw(tuple(n.radius for n in nodes), tuple(n.weight for n in nodes))
            for nodes in zip(*drawn, strict=True)
        )

    def estimate(
        self,
        weights: Weights,
        closure: Callable[..., Any],
        step: int,
        stay: bool = False,
        evaluation: Evaluation | None = None,
    ) -> Estimate:
        """Measure the losses of a step. The model computes with θ afterwards.

        Args:
            weights: θ.
            closure: The loss of the step's batch, in the form that the evaluation asks for; the
                same batch at every call. If it raises, the weights are restored first.
            step: 0 for the first update.
            stay: Leave the model at the last point; whoever asks for it moves or restores it.
            evaluation: By default `closure()` is the loss at the model's current parameters.
        """
        evaluation = evaluation or Sequential()
        try:
            losses = evaluation.losses(weights, closure, self.points(weights, step))
        except BaseException:
            weights.restore_()
            raise
        if not stay:
            weights.restore_()
        return self.from_losses(losses, step, len(weights.sizes))

    def points(self, weights: Weights, step: int) -> list[tuple[int, list[Factors]]]:
        """Where a step measures: for each direction its key and the factors of u, in order."""
        scale = self.perturbation_scale_at(step)
        visited = []
        for direction in range(self.num_directions):
            key = derive_key(self.seed, "directions", step, direction)
            draws = self.draw(step, direction, len(weights.sizes))
            signed = [(sign * scale, draw.radii) for draw in draws for sign in (1.0, -1.0)]
            visited.append((key, [tuple(s * r for r in radii) for s, radii in signed]))
        return visited

    def from_losses(self, losses: Sequence[float], step: int, num_tensors: int = 1) -> Estimate:
        """The estimate that these losses make: what a log replays.

        Args:
            losses: As in `Estimate`.
            step: 0 for the first update.
            num_tensors: How many tensors the weights have.

        Raises:
            ValueError: If there are not as many losses as a step has forward passes.
        """
        if len(losses) != self.forward_passes_per_step:
            raise ValueError(
                f"losses must have {self.forward_passes_per_step} numbers, got {len(losses)}"
            )
        scale = 2.0 * self.perturbation_scale_at(step)
        pairs = iter(zip(losses[::2], losses[1::2], strict=True))
        coefficients = []
        for direction in range(self.num_directions):
            total: Factors = (0.0,)
            for draw in self.draw(step, direction, num_tensors):
                plus, minus = next(pairs)
                slope = (plus - minus) / scale
                terms = tuple(slope * weight / self.num_directions for weight in draw.weights)
                total = tuple(a + b for a, b in pair(total, terms))
            coefficients.append(total)
        return Estimate(self.seed, step, tuple(coefficients), tuple(losses))
