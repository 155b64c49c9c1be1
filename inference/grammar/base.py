"""The seam between the engine and grammar libraries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What the output must match. `kind`: json_schema, json_object, regex, choice or ebnf; `text` is the
    schema (canonical JSON), the pattern, the JSON list of choices or the grammar. Hashable: a cache key."""

    kind: str
    text: str = ""


class Matcher(ABC):
    """The state of one output on its way through a grammar. Used on the engine's thread."""

    @abstractmethod
    def fill(self, mask: Mask) -> None:
        """Set bit t % 32 of mask[t // 32] for each token t that may come next."""

    @abstractmethod
    def accept(self, token: int) -> bool:
        """Move on; False if the grammar does not allow `token` here."""

    @abstractmethod
    def forced(self) -> list[int]:
        """Tokens that the grammar leaves no choice about, from here (jump-forward). Not yet accepted."""

    @property
    def fault(self) -> str | None:
        """Why `accept` failed, where that is known: a library may find out late that a grammar is too large."""
        return None

    @property
    @abstractmethod
    def done(self) -> bool:
        """The output is complete and nothing more may follow."""


class GrammarCompiler(ABC):
    """From a specification to fresh matchers. `matcher` may take long: call it off the engine's thread."""

    @abstractmethod
    def matcher(self, spec: GrammarSpec) -> Matcher:
        """:raises GrammarError: the specification cannot be compiled; says why."""
