"""`python -m sweeps.trial OVERRIDES`: one trial in the foreground, without Ray."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from kerzoo.models.placement import num_gpus_here
from kerzoo.records import ENDED
from kerzoo.training import run_trials
from sweeps.compose import ConfigError
from sweeps.plan import check_same_study, make_plan

HELP = """\
usage: python -m sweeps.trial [OVERRIDE ...]

Run one trial in the foreground, as a sweep would run it, without Ray. The same command again
resumes it. Records go to results/trial, or to results/NAME with name=NAME.

  python -m sweeps.trial arm=mezo model=opt-tiny training.forward_passes=48
  python -m sweeps.trial +sweep=quickstart arm=legendre2 \\
      training.perturbation_scale=1e-2 training.learning_rate=1e-2

Exit codes: 0 done; 1 the trial failed; 2 the configuration is wrong; 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(overrides):
        print(HELP, end="")
        return 0
    command = shlex.join(["python", "-m", "sweeps.trial", *overrides])
    named = any(o.startswith("name=") for o in overrides)
    try:
        plan = make_plan(overrides if named else [*overrides, "name=trial"], command, single=True)
        if len(plan.specs) > 1:
            raise ConfigError(
                f"space: {len(plan.specs)} trials match; give a value for each swept key: "
                + ", ".join(plan.content["factors"])
            )
        if named:
            check_same_study(plan)
        plan.check_available()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not named or not (plan.folder / "plan.json").exists():
        plan.write()
    plan.create_trials()
    spec = plan.specs[0]
    folder = plan.trial_folder(spec.trial_id)
    if folder.status in ENDED:
        print(f"{folder.status} already: {folder.path}")
    try:
        num_gpus = num_gpus_here(plan.sweep.cluster.gpus_per_trial)
        code = run_trials(plan.specs, plan.folder, num_gpus)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues", file=sys.stderr)
        return 130
    print(f"records: {folder.path}")
    return code


if __name__ == "__main__":
    sys.exit(main())
