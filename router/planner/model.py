"""Planning with a model on an OpenAI-compatible endpoint, ours by default.

    with_model = ModelPlanner(Endpoint("http://127.0.0.1:8000"), fallback=RulesPlanner(weights()))
    plan = with_model.plan("The weather in Paris", candidates)

Where the endpoint holds a model to a schema, a plan is written one step at a time, each under a grammar
that allows real tools, real parameters, legal values and parts of earlier results alone; the prompt of
each step continues the one before, so that a server with a prefix cache computes only what is new.
Elsewhere the whole plan is asked for at once, checked, and repaired once. Where neither gives a plan,
``fallback`` does, and the plan's note says so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from router.errors import BadRequest, MalformedPlan, ModelFailed, ModelUnavailable, RequestRefused
from router.grammar import copies, next_step
from router.plan import Definition, Plan, Step, from_json, to_json
from router.planner.base import Planner, Recall, fallen_back, nothing
from router.planner.endpoint import Ability, Connection, Endpoint
from router.planner.prompt import Message, messages
from router.planner.sound import sound
from router.planner.whole import whole_plan

SECONDS: Final = 60.0
"""For one plan."""
MOST_STEPS: Final = 16
STEP_TOKENS: Final = 2048
PLAN_TOKENS: Final = 4096
REST: Final = 5.0
"""Seconds for which an endpoint that could not be reached is not tried again."""


class ModelPlanner:
    """A planner that asks a model.

    :param fallback: plans where the model cannot.
    :param strings: ``free``, or ``copied`` from the request where a parameter takes any text.
    :param seconds: what one plan may take; at its end the fallback plans.
    :param least_steps: the plan may end only after so many; 0 where no tool may fit.
    :param say: hears why the model was not used.
    :param recall: plans to show it as examples.
    """

    name = "model"

    def __init__(
        self,
        endpoint: Endpoint,
        fallback: Planner,
        *,
        strings: Literal["free", "copied"] = "free",
        seconds: float = SECONDS,
        most_steps: int = MOST_STEPS,
        least_steps: int = 0,
        say: Callable[[str], None] = lambda line: None,
        recall: Recall = nothing,
    ) -> None:
        self.endpoint = endpoint
        self._fallback, self._say, self._recall = fallback, say, recall
        self._copied = strings == "copied"
        self._seconds, self._most_steps, self._least_steps = seconds, most_steps, least_steps
        self._rest: tuple[float, ModelUnavailable] | None = None
        self._lock = threading.Lock()

    def plan(self, request: str, tools: Sequence[Definition]) -> Plan:
        """A plan over the candidates.

        :raises BadRequest: the request is empty.
        """
        if not request.strip():
            raise BadRequest("The request is empty.", "Say what is to be done.")
        if not tools:
            return Plan((), request, "There are no tools to plan with.")
        try:
            return self._by_model(request, tools)
        except ModelFailed as error:
            return fallen_back(self._fallback, request, tools, error, self._say)

    def ability(self) -> Ability:
        """What the endpoint can hold a model to, for `doctor`.

        :raises ModelFailed: it cannot be reached.
        """
        try:
            with self.endpoint.connect(time.monotonic() + self._seconds) as connection:
                return self.endpoint.ability(connection)
        except TimeoutError:
            raise self._late() from None

    def stream(self, request: str, tools: Sequence[Definition]) -> Iterator[Step]:
        """The steps of a plan as they are written; a `router.planner.base.StepWriter`.

        :raises ModelFailed: there is no next step to be had.
        """
        with self._talking() as connection:
            if self.endpoint.ability(connection) is Ability.NONE:
                raise ModelFailed(f"{self.endpoint.url} writes plans as a whole alone.")
            yield from self.steps(request, tools, connection)

    def steps(self, request: str, tools: Sequence[Definition], connection: Connection) -> Iterator[Step]:
        """The steps one by one, each as soon as it is written, for an endpoint that holds to schemas.

        :raises ModelFailed: there is no next step to be had.
        """
        ability = self.endpoint.ability(connection)
        copied = copies(request) if self._copied else None
        examples = self._recall(request, tools)
        plan = Plan((), request)
        while len(plan.steps) < self._most_steps:
            answer = connection.answer(
                messages(tools, request, plan, examples),
                next_step(tools, plan, copied=copied, end=len(plan.steps) >= self._least_steps),
                ability,
                max_tokens=STEP_TOKENS,
            )
            step = _step(answer.text, plan)
            if step is None or any(_same(step, other) for other in plan.steps):
                return
            plan = Plan((*plan.steps, step), request)
            yield step

    def _by_model(self, request: str, tools: Sequence[Definition]) -> Plan:
        with self._talking() as connection:
            if self.endpoint.ability(connection) is Ability.NONE:
                return self._whole(connection, request, tools)
            try:
                return self._by_steps(connection, request, tools)
            except RequestRefused as error:
                if error.status not in (400, 422):
                    raise
                return self._whole(connection, request, tools)  # a schema it cannot hold to

    @contextmanager
    def _talking(self) -> Iterator[Connection]:
        """A connection for one plan; one that could not be had is not tried again at once.

        :raises ModelUnavailable: there is none, or the time for the plan is over.
        """
        with self._lock:
            rest = self._rest
        if rest is not None and time.monotonic() < rest[0]:
            raise rest[1]
        try:
            with self.endpoint.connect(time.monotonic() + self._seconds) as connection:
                yield connection
        except TimeoutError:
            raise self._late() from None
        except ModelUnavailable as error:
            with self._lock:
                self._rest = (time.monotonic() + REST, error)
            raise

    def _by_steps(self, connection: Connection, request: str, tools: Sequence[Definition]) -> Plan:
        steps = tuple(self.steps(request, tools, connection))
        if not steps:
            return Plan((), request, "None of the tools fits the request.")
        return sound(Plan(steps, request), {tool.name: tool for tool in tools})

    def _whole(self, connection: Connection, request: str, tools: Sequence[Definition]) -> Plan:
        def ask(talk: Sequence[Message]) -> str:
            return connection.answer(talk, max_tokens=PLAN_TOKENS).text

        return whole_plan(ask, request, tools, self._recall(request, tools))

    def _late(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"The model at {self.endpoint.url} made no plan in {self._seconds:g} seconds.",
            "Allow it more time, or use a smaller model.",
        )


def _step(text: str, plan: Plan) -> Step | None:
    """The step in a model's answer; None where it ended the plan.

    :raises ModelFailed: it is none; an endpoint that holds to the schema does not give that, unless the
        answer was cut off.
    """
    try:
        value = json.loads(text)
        following = value["next"]
        if following is None:
            return None
        call: dict[str, Any] = {
            "id": str(len(plan.steps) + 1),
            "tool": following["tool"],
            "arguments": following["arguments"],
            "depends_on": list(dict.fromkeys(following.get("after", ()))),
        }
        return from_json([call]).steps[0]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MalformedPlan):
        raise ModelFailed("The model's answer was cut off, or is no step.") from None


def _same(a: Step, b: Step) -> bool:
    """Whether two steps call one tool with the same arguments: a model that repeats itself is done."""
    first, second = to_json(Plan((a, b)))["plan"]
    return bool(first["tool"] == second["tool"] and first["arguments"] == second["arguments"])
