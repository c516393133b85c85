"""Points from optuna's tree-structured Parzen estimator: the only module that imports optuna."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.compose import ConfigError
from sweeps.dimensions import Choices, Range
from sweeps.plan.outcomes import Outcome
from sweeps.sampling import Point

if TYPE_CHECKING:
    import optuna

TRIES = 50
"""How often a point is asked for until it is one that is wanted."""
DIGITS = 6
"""Decimals of a coordinate: few enough that no point hangs on a libm's last bit."""


def check_installed() -> None:
    """Refuse a search that needs optuna where there is none.

    Raises:
        ConfigError: Saying how to get it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "search=optuna: optuna is not installed; `pip install -c constraints.txt optuna`, or "
            "set search=sobol"
        )


def ask(
    drawn: Mapping[str, Range | Choices],
    told: Sequence[tuple[Point, Outcome | None]],
    number: int,
    seed: int,
    is_wanted: Callable[[Point], bool],
) -> list[Point]:
    """The next points of a study, which follow from the arguments alone.

    Lower losses are better. A point whose trials finished has its loss as value. One that was
    stopped counts as pruned: as worse than all that finished, better the further it came, and at
    the same rung by its loss. One that diverged or failed is worse than all others. Points of the
    same generation repel each other (a constant liar), and so does what is not wanted.

    Nothing is stored or pickled: the study lives in memory, rebuilt at every call.

    Args:
        drawn: What is drawn from. A range is searched in its coordinate, whatever its scale.
        told: All points so far, with what they came to; None for the worst.
        number: Of points to ask for.
        seed: In [0, 2³²).
        is_wanted: Whether a point can be taken. Called once for each; a wanted one is taken.

    Returns:
        Fewer points if `TRIES` in a row were not wanted.

    Source: Bergstra et al. 2011; Watanabe 2023, arXiv 2304.11127; optuna's TPESampler.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    laws = {name: _law(drawn[name]) for name in sorted(drawn)}
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(sampler=sampler, direction="minimize")
    for point, outcome in told:
        study.add_trial(_recall(drawn, laws, point, outcome))
    found: list[Point] = []
    for _ in range(number):
        for _ in range(TRIES):
            asked = study.ask(laws).params
            point = {name: _coordinate(drawn[name], asked[name]) for name in laws}
            if is_wanted(point):
                found.append(point)
                break
        else:
            break
    return found


def _law(dimension: Range | Choices) -> Any:
    import optuna

    if isinstance(dimension, Choices):
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    return optuna.distributions.FloatDistribution(0.0, 1.0)


def _coordinate(dimension: Range | Choices, value: Any) -> float:
    if isinstance(dimension, Choices):
        value = (int(value) + 0.5) / len(dimension.values)
    return round(float(value), DIGITS)


def _recall(
    drawn: Mapping[str, Range | Choices],
    laws: Mapping[str, Any],
    point: Point,
    outcome: Outcome | None,
) -> optuna.trial.FrozenTrial:
    import optuna

    params = {
        name: d.place(point[name]) if isinstance(d := drawn[name], Choices) else point[name]
        for name in laws
    }
    about: dict[str, Any] = {"params": params, "distributions": dict(laws)}
    state = optuna.trial.TrialState
    if outcome is None:
        return optuna.trial.create_trial(state=state.PRUNED, **about)
    if outcome.is_finished:
        return optuna.trial.create_trial(state=state.COMPLETE, value=outcome.loss, **about)
    seen = {outcome.rung: outcome.loss}
    return optuna.trial.create_trial(state=state.PRUNED, intermediate_values=seen, **about)
