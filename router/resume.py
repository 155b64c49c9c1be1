"""Taking up a run: where its steps stand now that whoever ran them is gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from router.running import Running, unknown
from router.runs import Failure, StepStatus

_GONE: Final = Failure("interrupted", "The process that made the call ended before an outcome was on disk.")


def restored(running: Running, steps: Iterable[str], *, retry: bool) -> None:
    """Set where the steps stand, from where the journal says they stood.

    A durable intent without an outcome means that the call may have been made. Where repeating does no
    harm it is made again; otherwise nobody but a person knows.

    :param steps: ids of the plan as it is now; others belong to earlier revisions.
    :param retry: whether steps that failed for certain are called again.
    """
    again = {StepStatus.APPROVAL, StepStatus.CANCELLED, StepStatus.SKIPPED}
    if retry:
        again.add(StepStatus.FAILED)
    for id_ in steps:
        state = running.states.get(id_)
        if state is None:
            continue
        if state.status is StepStatus.RUNNING and not running.may_repeat(state):
            running.set(unknown(state, _GONE), "outcome_unknown", end=True, error=_GONE.kind)
        elif state.status is StepStatus.RUNNING or state.status in again:
            running.states[id_] = replace(
                state, status=StepStatus.WAITING, failure=None, started_at=None, ended_at=None
            )
