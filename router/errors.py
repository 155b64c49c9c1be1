"""The router's errors. Each says what was tried, what was wrong and what to do about it."""

from __future__ import annotations


class RouterError(Exception):
    """Base of every error the router raises on purpose.

    :param message: what was tried and what was wrong, one sentence.
    :param hint: what to do about it, one sentence, or None.
    """

    kind: str = "router_error"
    retriable: bool = False

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint


class BadRequest(RouterError):
    """A request that cannot be grounded: empty, or with bounds that cannot be."""

    kind = "bad_request"


class PlanError(RouterError):
    """One thing that is wrong in a plan.

    :param step: the id of the step it was found in.
    :param path: where in the step, as a JSON pointer into its arguments; empty for the step as a whole.
    :param schema_path: the rule that was broken, as a JSON pointer into the tool's input schema.
    """

    kind = "plan_error"

    def __init__(
        self, message: str, hint: str | None = None, *, step: str = "", path: str = "", schema_path: str = ""
    ) -> None:
        super().__init__(message, hint)
        self.step = step
        self.path = path
        self.schema_path = schema_path


class MalformedPlan(PlanError):
    """What was read is not a plan: a wrong type, a missing key, a limit passed."""

    kind = "malformed_plan"


class DuplicateStep(PlanError):
    """Two steps have one id."""

    kind = "duplicate_step"


class UnknownTool(PlanError):
    """A step calls a tool that is not among those given."""

    kind = "unknown_tool"


class UnknownStep(PlanError):
    """A step depends on one that the plan does not have, or on itself."""

    kind = "unknown_step"


class HiddenDependency(PlanError):
    """A step takes a value of another that its ``depends_on`` does not name."""

    kind = "hidden_dependency"


class Cycle(PlanError):
    """Steps wait for each other."""

    kind = "cycle"


class BadPath(PlanError):
    """A reference's path leads to nothing that the tool says it returns."""

    kind = "bad_path"


class BadArguments(PlanError):
    """Arguments that the tool's input schema does not allow."""

    kind = "bad_arguments"


class BadSchema(PlanError):
    """A tool's own schema cannot be used, so that nothing can be checked against it."""

    kind = "bad_schema"


class InvalidPlan(RouterError):
    """A plan that must not run.

    :param problems: everything that is wrong with it, in the order of its steps.
    """

    kind = "invalid_plan"

    def __init__(self, problems: tuple[PlanError, ...]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"The plan cannot run: {first.message}{more}", first.hint)
        self.problems = problems


class JournalError(RouterError):
    """The journal could not be opened, read or written."""

    kind = "journal_error"


class JournalNewer(JournalError):
    """A later version of the product wrote the journal."""

    kind = "journal_newer"


class JournalDamaged(JournalError):
    """The journal holds something that cannot be read back."""

    kind = "journal_damaged"


class RunLost(JournalError):
    """Another process runs it; what this one still wanted to write was refused."""

    kind = "run_lost"


class UnknownRun(RouterError):
    """There is no run, step or result of that name."""

    kind = "unknown_run"


class CallFailed(RouterError):
    """A call came to no result. Raised by what makes the calls.

    :param kind: our own class of what went wrong, in lower case.
    :param unknown: whether it may have been carried out all the same, and nobody can tell.
    :param retriable: whether the same call may succeed later.
    :param said: what the server said, for a person alone.
    """

    kind = "call_failed"

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        kind: str = "call_failed",
        unknown: bool = True,
        retriable: bool = False,
        said: str = "",
    ) -> None:
        super().__init__(message, hint)
        self.kind = kind
        self.unknown = unknown
        self.retriable = retriable
        self.said = said


class NotResumable(RouterError):
    """A run that is over, or under way already, cannot be taken up again."""

    kind = "not_resumable"


class Unanswered(RouterError):
    """A plan asks for values that nobody gave, so it cannot run yet."""

    kind = "unanswered"


class PlannerMissing(RouterError):
    """A planner that cannot be used here: not installed, not configured, or not reachable."""

    kind = "planner_missing"


class ModelFailed(RouterError):
    """A model gave no usable answer; another planner has to do."""

    kind = "model_failed"


class ModelUnavailable(ModelFailed):
    """A model's endpoint cannot be reached, is busy, or does not answer in time."""

    kind = "model_unavailable"
    retriable = True


class RequestRefused(ModelFailed):
    """An endpoint does not take a request as it is: a field, a schema, a model's name, a token.

    :param status: the HTTP status it answered.
    """

    kind = "request_refused"

    def __init__(self, message: str, hint: str | None = None, *, status: int = 400) -> None:
        super().__init__(message, hint)
        self.status = status
