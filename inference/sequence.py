"""The records that flow through the engine: a request, and the sequence that serves it.

No torch here: scheduler and cache work on these alone and are property-tested without a model.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.cache.base import Node
    from inference.grammar.base import Matcher


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 switch their filter off. `seed` makes a
    request reproducible whatever else is in its batch. `logprobs` is the number of alternatives reported
    beside the chosen token (None: no log-probabilities at all).
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    logprobs: int | None = None
    ignore_eos: bool = False
    stop_token_ids: frozenset[int] = frozenset()

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class Hints:
    """What a caller may say about the program a request belongs to. Kept with the request for policies that
    look beyond one call (who shares, what comes next); the scheduler itself reads only priority and deadline.
    """

    program: str | None = None
    client: str | None = None
    expected_tool: str | None = None
    turn: int | None = None
    last_turn: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue. A smaller `priority` is more urgent; `deadline` is on the monotonic clock.

    `namespace` isolates KV sharing: two requests share cached prefixes only inside one namespace.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    namespace: str = ""
    priority: int = 0
    deadline: float | None = None
    matcher: Matcher | None = None
    hints: Hints = Hints()


class Status(enum.Enum):
    WAITING = "waiting"  # holds no pages
    RUNNING = "running"  # admitted: holds pages for all of its tokens so far
    FINISHED = "finished"


class Finish(enum.Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Sequence:
    """A request on its way: its tokens, and which of them have their keys and values in the cache.

    Invariant: `computed <= len(tokens)`, and positions `[0, computed)` are in `pages`. The token at
    `len(tokens) - 1` is not computed until the step that samples its successor.
    """

    request: Request
    arrival: int  # order of arrival: ties of priority and deadline are first come, first served
    tokens: list[int] = field(init=False)
    status: Status = Status.WAITING
    finish: Finish | None = None
    computed: int = 0
    cached: int = 0  # prompt tokens that somebody else's computation paid for (first admission only)
    decoding: bool = False  # has sampled since its last admission
    draft: list[int] = field(default_factory=list)  # speculated continuation, proposed for this step
    preemptions: int = 0
    pages: list[int] = field(default_factory=list)
    path: list[Node] = field(default_factory=list)  # the shared pages, pages[i] == path[i].page
    share: bool = True  # whether further full pages may enter the shared tree
    slot: int = -1  # row of the runner's page table; -1 while it holds none

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def prompt_length(self) -> int:
        return len(self.request.prompt)

    @property
    def output_length(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def uncomputed(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def urgency(self) -> tuple[int, float, int]:
        """Sort key: the smallest is served first and preempted last."""
        r = self.request
        return (r.priority, float("inf") if r.deadline is None else r.deadline, self.arrival)
