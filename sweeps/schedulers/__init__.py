"""Who goes on at a rung: one class for each option of conf/scheduler, and what they share.

Nothing here imports Ray but `sweeps.schedulers.tune`.
"""

from sweeps.schedulers.asha import StratifiedASHA
from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.enrolment import enrol, entrants_of
from sweeps.schedulers.fifo import FIFO
from sweeps.schedulers.halving import SynchronousHalving
from sweeps.schedulers.hyperband import HyperBand
from sweeps.schedulers.median import MedianStopping
from sweeps.schedulers.race import Race
from sweeps.schedulers.standings import Entrant, Standings, Verdict

__all__ = [
    "FIFO",
    "Entrant",
    "HyperBand",
    "MedianStopping",
    "Race",
    "Scheduler",
    "Standings",
    "StratifiedASHA",
    "SynchronousHalving",
    "Verdict",
    "enrol",
    "entrants_of",
]
