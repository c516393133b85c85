"""What matters, where and by how much: effects at rungs, importance, robustness, theory.

Importing the package registers its tables and figures.
"""

from __future__ import annotations

from analysis.sensitivity import (
    effects_shown,
    importance_shown,
    landscapes,
    robustness_shown,
    theory_shown,
)

__all__ = ["effects_shown", "importance_shown", "landscapes", "robustness_shown", "theory_shown"]
