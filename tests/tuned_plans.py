"""Plans of search=optuna whose trials end at once, with a dev loss that is planted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.events import EventLog
from sweeps.plan import Plan, ask_generation, make_plan
from sweeps.schedulers import Race, entrants_of

RATE, SCALE = "training.learning_rate", "training.perturbation_scale"
SPACE = f"{RATE}:{{low:1e-4,high:1e-1,log:true}},{SCALE}:{{low:1e-3,high:1e-1,log:true}}"
OPTUNA = (
    "+sweep=quickstart",
    "model=opt-tiny",
    "search=optuna",
    "search.num_samples=10",
    "search.generation=4",
    f"space={{arm:[mezo,legendre2],{SPACE}}}",
)
DIRECTIONS = "training.num_directions:{low:1,high:30,integer:true}"
RUNGS = (36, 72, 144)


def plan_of(folder: Path, *overrides: str) -> Plan:
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    return make_plan([*OPTUNA, *overrides], "python sweep.py")


def planted(values: dict[str, Any]) -> float:
    """A dev loss with its optimum at a learning rate of 1e-2 and an ε of 3e-2."""
    rate, scale = (math.log10(values[key.partition(".")[2]]) for key in (RATE, SCALE))
    return 0.5 + 0.1 * (rate + 2) ** 2 + 0.01 * (scale + 1.5) ** 2


def end(plan: Plan, loss: Callable[[dict[str, Any]], float] = planted, **update: str) -> None:
    """Leave what trials leave that run to their end."""
    plan.write()
    plan.create_trials()
    for spec in plan.specs:
        folder = plan.trial_folder(spec.trial_id)
        if spec.phase == "screen" and folder.status == "planned":
            value = loss(spec.config["training"])
            rows = [
                {"rung": r, "step": r // 2, "forward_passes": r, "dev_loss": value + (r == 0)}
                | {"diverged": False}
                for r in (0, *RUNGS)
            ]
            folder.records_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            folder.update(**{"status": "finished", **update})


def go_on(plan: Plan) -> bool:
    """Ask for a generation; whether there is one."""
    return ask_generation(plan, print) is not None


def run_through(plan: Plan) -> int:
    """All generations; returns how many there were."""
    number = 1
    end(plan)
    while go_on(plan):
        end(plan)
        number += 1
    return number


def points_of(plan: Plan) -> dict[tuple[str, int], set[tuple[float, float]]]:
    """Arm and generation → learning rates and ε."""
    found: dict[tuple[str, int], set[tuple[float, float]]] = {}
    for cell in plan.content["cells"]:
        if number := plan.content["generations"].get(cell["trial_id"]):
            point = cell["values"][RATE], cell["values"][SCALE]
            found.setdefault((cell["arm"], number), set()).add(point)
    return found


def race_through(plan: Plan) -> None:
    """Run the planned trials rung by rung, as the scheduler says."""
    log = EventLog(plan.folder / "events.jsonl")
    race = Race(plan.sweep.scheduler, entrants_of(plan.sweep.scheduler, plan.content), log)
    folders = {s.trial_id: plan.trial_folder(s.trial_id) for s in plan.specs}
    race.resume({trial: folder.rows() for trial, folder in folders.items()})
    running = [s for s in plan.specs if folders[s.trial_id].status == "planned"]
    for rung in (0, *RUNGS):
        for spec in [s for s in running if race.standing(s.trial_id) == "continue"]:
            row = {"rung": rung, "step": rung // 2, "forward_passes": rung, "diverged": False}
            row["dev_loss"] = planted(spec.config["training"])
            with folders[spec.trial_id].records_path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            race.arrive(spec.trial_id, row)
    for spec in running:
        stopped = race.standing(spec.trial_id) == "stop"
        folders[spec.trial_id].update(status="stopped" if stopped else "finished")
