"""Planning with the client's own model, through MCP sampling (``sampling/createMessage``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.errors import BadRequest, ModelFailed
from router.plan import Definition, Plan
from router.planner.base import Planner, Recall, fallen_back, nothing
from router.planner.whole import Ask, whole_plan


class SamplingPlanner:
    """A planner whose model is the client's.

    Which output a client's model may give cannot be held to a schema, so its plan is checked, repaired
    once, and made by ``fallback`` where that does not help.

    :param ask: sends the conversation to the client and gives back the text; raises ModelFailed where the
        client declines, or its answer is no text. It bounds its own waits.
    :param say: hears why the model was not used.
    :param recall: plans to show it as examples.
    """

    name = "sampling"

    def __init__(
        self,
        ask: Ask,
        fallback: Planner,
        say: Callable[[str], None] = lambda line: None,
        recall: Recall = nothing,
    ) -> None:
        self._ask, self._fallback, self._say, self._recall = ask, fallback, say, recall

    def plan(self, request: str, tools: Sequence[Definition]) -> Plan:
        """A plan over the candidates.

        :raises BadRequest: the request is empty.
        """
        if not request.strip():
            raise BadRequest("The request is empty.", "Say what is to be done.")
        if not tools:
            return Plan((), request, "There are no tools to plan with.")
        try:
            return whole_plan(self._ask, request, tools, self._recall(request, tools))
        except ModelFailed as error:
            return fallen_back(self._fallback, request, tools, error, self._say)
