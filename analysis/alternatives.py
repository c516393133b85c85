"""What speaks against the recommended method: one without a kernel, or no training at all."""

from __future__ import annotations

from analysis.decision import Decision
from analysis.formats import format_gib, format_loss, format_score
from analysis.language import Language
from analysis.standings import Standing


def describe_alternatives(decision: Decision, score_name: str, language: Language) -> list[str]:
    """A sentence for the best method without a kernel, and one for the untouched model.

    Each stands there only if its dev loss is not above that of the recommended arm, or of the
    lowest where none is, and the untouched model only where the verdict has not named it. What was
    not compared by fresh seeds is told as it was measured, and decides nothing.
    """
    own = decision.standing or decision.closest
    if own is None:
        return []
    others = [s for s in decision.group.standings if not (s.is_kernel or s.is_baseline)]
    rivals = [s for s in others if s.dev_loss <= own.dev_loss]
    sentences = []
    for key, trains in (("stronger", True), ("untouched", False)):
        found = [s for s in rivals if s.trains == trains]
        if found and (trains or decision.state != "untrained"):
            best = min(found, key=lambda s: s.dev_loss)
            sentences.append(_tell(f"alternative.{key}", own, best, score_name, language))
    return sentences


def _tell(key: str, own: Standing, other: Standing, score_name: str, language: Language) -> str:
    return language.say(
        key,
        arm=own.arm,
        other=other.arm,
        loss=format_loss(own.dev_loss),
        other_loss=format_loss(other.dev_loss),
        score=score_name,
        value=format_score(own.score.mean),
        other_value=format_score(other.score.mean),
        memory=format_gib(own.memory_gib),
        other_memory=format_gib(other.memory_gib),
    )
