"""The client's own model as a planner's, asked by ``sampling/createMessage`` from the thread that plans."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.errors import UpstreamError
from gateway.toolsets.asking import ask_model
from gateway.upstream.call import CallSite

if TYPE_CHECKING:
    from router.planner.prompt import Message
    from router.planner.whole import Ask


def asks_client(site: CallSite | None, seconds: float) -> Ask:
    """What asks the client behind a call; it is called from another thread.

    :param seconds: that one answer may take.
    :raises PlannerMissing: there is no client.
    """
    from router.errors import ModelFailed, PlannerMissing

    if site is None:
        raise PlannerMissing("it is the client's model that plans, and the command line is no such client.")
    loop = asyncio.get_running_loop()

    def ask(talk: Sequence[Message]) -> str:
        future = asyncio.run_coroutine_threadsafe(ask_model(site, talk, seconds), loop)
        try:
            text = future.result(seconds + 1)
        except (TimeoutError, concurrent.futures.CancelledError, UpstreamError):
            future.cancel()
            raise ModelFailed("The client's model gave no answer in time.") from None
        if text is None:
            raise ModelFailed("The client does not lend its model, or declined to.")
        return text

    return ask
