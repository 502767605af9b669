"""How the target task and the auxiliary task share the steps of a training."""

from __future__ import annotations

TARGET_ONLY_FROM = 0.85  # the last share of steps belongs to the target task


def auxiliary_weight(how: str, progress: float, *, start: float = 0.5) -> float:
    """The auxiliary task's share of the loss at `progress` in [0, 1) through the training.

    joint: L = (1 - a) L_target + a L_auxiliary, a falling linearly from `start`
    (Dery et al. 2022 find tasks trained together to beat one after the other where rows are few).
    sequential: the auxiliary task alone, then the target alone (STILTs, Phang et al. 2018).
    """
    if how == "none":
        return 0.0
    if how == "sequential":
        return 1.0 if progress < 0.5 else 0.0
    return start * (1 - progress) if progress < TARGET_ONLY_FROM else 0.0
