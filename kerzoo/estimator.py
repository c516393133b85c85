"""The kernel-weighted two-point estimate of the gradient, as an immutable result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from kerzoo.kernels import Kernel
from kerzoo.noise import derive_key, uniform_from_key
from kerzoo.schedules import Bandwidth
from kerzoo.weights import FlatWeights


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one step measured; with the seed, all that is needed to apply it.

    g = Σ_i coefficients[i] · u_i,   u_i = u(derive_key(seed, "directions", step, i))

    Attributes:
        seed: The run's seed.
        step: 0 for the first update.
        radii: r_i. Length: n directions.
        coefficients: [L(θ + ε r_i u_i) − L(θ − ε r_i u_i)] / (2ε) · K_d(r_i) / n.
        losses: L(θ + ε r_i u_i), L(θ − ε r_i u_i) for each direction in turn. Length: 2n.
    """

    seed: int
    step: int
    radii: tuple[float, ...]
    coefficients: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean of the perturbed losses."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def diverged(self) -> bool:
        """Whether a loss or a coefficient is not finite; such an estimate must not be applied."""
        return not all(map(math.isfinite, (*self.losses, *self.coefficients)))


@dataclasses.dataclass(frozen=True)
class Estimator:
    """g = (1/n) Σ_i [L(θ + ε r_i u_i) − L(θ − ε r_i u_i)] / (2ε) · K_d(r_i) · u_i.

    Args:
        kernel: K and the law of r.
        bandwidth: d and whether K is rescaled to it; ignored by a kernel without a bandwidth.
        perturbation_scale: ε > 0.
        num_directions: n ≥ 1; a step costs 2n forward passes.
        num_steps: Length of the bandwidth's schedule, ≥ 1.
        seed: The run's seed.

    Raises:
        ValueError: For a value outside its range.

    Source: Mi et al. 2025, arXiv 2505.18886; with K ≡ 1, r ≡ 1 Malladi et al. 2023, 2305.17333.
    """

    kernel: Kernel
    bandwidth: Bandwidth
    perturbation_scale: float
    num_directions: int = 1
    num_steps: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.perturbation_scale) and self.perturbation_scale > 0):
            raise ValueError(f"perturbation_scale must be > 0, got {self.perturbation_scale}")
        if self.num_directions < 1:
            raise ValueError(f"num_directions must be at least 1, got {self.num_directions}")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")

    @property
    def forward_passes_per_step(self) -> int:
        """2n."""
        return 2 * self.num_directions

    def draw(self, step: int, direction: int) -> tuple[float, float]:
        """(r, K_d(r)) of one direction: a function of (seed, step, direction) alone."""
        u = uniform_from_key(derive_key(self.seed, "radii", step, direction))
        rho = self.kernel.radius(u)
        if not self.kernel.has_bandwidth:
            return rho, self.kernel.weight(rho)
        d = self.bandwidth.half_width_at(step, self.num_steps)
        if self.bandwidth.rescale:
            return d * rho, self.kernel.weight(rho) / d
        return d * rho, self.kernel.weight(d * rho)

    def estimate(self, weights: FlatWeights, closure: Callable[[], float], step: int) -> Estimate:
        """Measure the losses of a step. The weights are afterwards exactly as before.

        Args:
            weights: θ.
            closure: The loss of the step's batch at the model's current parameters; the same
                batch at every call. If it raises, the weights are restored first.
            step: 0 for the first update.
        """
        radii: list[float] = []
        coefficients: list[float] = []
        losses: list[float] = []
        for direction in range(self.num_directions):
            key = derive_key(self.seed, "directions", step, direction)
            r, weight = self.draw(step, direction)
            pair = []
            with weights.intact():
                for sign in (1.0, -1.0):
                    weights.perturb_(key, sign * self.perturbation_scale * r)
                    pair.append(float(closure()))
            slope = (pair[0] - pair[1]) / (2.0 * self.perturbation_scale)
            radii.append(r)
            coefficients.append(slope * weight / self.num_directions)
            losses.extend(pair)
        return Estimate(self.seed, step, tuple(radii), tuple(coefficients), tuple(losses))


def apply_updates(weights: FlatWeights, seed: int, step: int, updates: tuple[float, ...]) -> None:
    """θ ← θ + Σ_i updates[i] · u_i, with the directions of (seed, step). Replay calls it too."""
    for direction, update in enumerate(updates):
        weights.move_(derive_key(seed, "directions", step, direction), update)
