"""What is known of a value: where it came from, whether it may be trusted, whether it is confidential.

Labels only ever grow along references (CaMeL, arXiv 2503.18813, capabilities; SAFEFLOW, arXiv
2506.07564): a value made of others has every source of theirs, is trusted only where all were, and
confidential where any was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a value.

    :param sources: the servers whose output is in it; empty for what the person wrote.
    """

    sources: frozenset[str] = field(default_factory=frozenset)
    trusted: bool = True
    confidential: bool = False

    def join(self, other: Label) -> Label:
        """The label of a value made of both."""
        return Label(
            self.sources | other.sources,
            self.trusted and other.trusted,
            self.confidential or other.confidential,
        )


FROM_PERSON: Final = Label()
"""Of values that stand in the plan: they are fixed before any tool has said anything."""


def joined(labels: Iterable[Label]) -> Label:
    """The label of a value made of all of them."""
    made = FROM_PERSON
    for label in labels:
        made = made.join(label)
    return made
