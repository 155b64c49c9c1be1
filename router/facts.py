"""What is known of a tool when it is about to be called: what it may do, and how it is to be treated.

A tool's own annotations are hints of whoever wrote it (MCP, Tool annotations: "clients MUST consider tool
annotations to be untrusted unless they come from trusted servers"). They count here only where a person
has approved the definition they stand in; what they leave open is taken for the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from router.plan import Definition

CALL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a person has set for a tool; None leaves it to approved annotations, or to the worst.

    :param trusted: whether what it returns was written by somebody who may be trusted.
    :param confidential: whether what it returns must not leave for the open world.
    :param code: whether it runs what it is given (a shell, SQL, an interpreter).
    :param pure: whether the same arguments always give the same result, so that it may be kept.
    :param timeout: seconds one call may take.
    """

    read_only: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None
    trusted: bool = False
    confidential: bool = False
    code: bool = False
    pure: bool = False
    timeout: float = CALL_SECONDS


@dataclass(frozen=True, slots=True)
class Facts:
    """A tool as the executor sees it.

    :param seconds: what a call takes on average, where calls were counted; None where not.
    :param cost: what a call costs on average, in the unit of the registry's statistics.
    """

    definition: Definition
    read_only: bool = False
    idempotent: bool = False
    open_world: bool = True
    trusted: bool = False
    confidential: bool = False
    code: bool = False
    pure: bool = False
    timeout: float = CALL_SECONDS
    seconds: float | None = None
    cost: float = 0.0

    @property
    def name(self) -> str:
        """The name that plans use."""
        return self.definition.name

    @property
    def server(self) -> str:
        """The server it belongs to."""
        return self.definition.server

    @property
    def repeatable(self) -> bool:
        """Whether calling it twice does what calling it once does."""
        return self.read_only or self.idempotent or self.pure

    @property
    def early(self) -> bool:
        """Whether it may run before the plan is complete, and without anybody's word."""
        return self.read_only


_OWN: Final = Policy()


def facts_of(
    definition: Definition,
    *,
    approved: bool,
    policy: Policy = _OWN,
    seconds: float | None = None,
    cost: float = 0.0,
) -> Facts:
    """The facts of a tool.

    :param approved: whether its definition, annotations included, is the one a person approved.
    """
    hints: Mapping[str, Any] = definition.annotations if approved else {}
    read_only = _set(policy.read_only, hints.get("readOnlyHint") is True)
    return Facts(
        definition,
        read_only=read_only,
        idempotent=_set(policy.idempotent, hints.get("idempotentHint") is True),
        open_world=_set(policy.open_world, hints.get("openWorldHint") is not False),
        trusted=policy.trusted,
        confidential=policy.confidential,
        code=policy.code,
        # A tool that changes something is not pure, whatever was declared.
        pure=policy.pure and read_only,
        timeout=policy.timeout,
        seconds=seconds,
        cost=cost,
    )


def _set(wanted: bool | None, otherwise: bool) -> bool:
    return otherwise if wanted is None else wanted
