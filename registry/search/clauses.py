"""A request of several wishes, cut into its clauses.

One vector for "book a flight to Rome and tell me the weather there" lies between both tools and
finds neither well; each clause by itself finds its own. Cuts fall where English starts a new wish:
between sentences, at semicolons and line breaks, and at a conjunction or comma that a verb or a
question word follows. Quoted text, numbers, addresses and file names are never cut.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

MAX_CLAUSES: Final = 8
"""More are joined into the last; each clause costs an encoding."""
MIN_WORDS: Final = 3
"""A shorter piece is no wish of its own and stays with its neighbour."""

_QUOTED: Final = re.compile(
    r"\"[^\"\n]{0,300}\"|“[^”\n]{0,300}”|(?<!\w)'[^'\n]{1,300}'(?!\w)|`[^`\n]{0,300}`"
)
_STOP: Final = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[^\sa-z])|[;\n\r]+|(?<=[\u3002\uff01\uff1f\uff1b])")
_WISH: Final = (
    r"(?:please|also|then|finally|lastly|additionally|afterwards?|next|could|can|would|will|may|"
    r"i|we|what|which|who|where|when|how|is|are|do|does|tell|give|show|find|get|fetch|retrieve|search|look|"
    r"list|check|calculate|compute|determine|create|make|generate|build|add|update|delete|remove|set|reset|"
    r"send|post|share|analy[sz]e|evaluate|assess|compare|convert|translate|book|order|buy|schedule|"
    r"suggest|recommend|provide|help|apply|perform|conduct|run|track|monitor|identify|detect|extract|"
    r"summari[sz]e|explain|describe|plan|design|develop|write|read|open|close|start|stop|save|store|"
    r"download|upload|submit|request|register|subscribe|enroll|estimate|predict|recognize|optimi[sz]e|"
    r"manage|measure|report|return|obtain|verify|validate|use|play|watch|take|let|know|see)"
)
_LEAD: Final = re.compile(
    r"^(?:(?:and|then|also|but|or|plus|finally|lastly|additionally|furthermore|moreover|next|first(?:ly)?|"
    r"second(?:ly)?|third(?:ly)?|after that|in addition|as well as|please)\b[,\s]*)+",
    re.IGNORECASE,
)
_TAIL: Final = re.compile(
    r"[,.\s]+(?:and|then|also|finally|lastly|additionally|furthermore|moreover|next|after that|in addition|"
    r"first(?:ly)?|second(?:ly)?|third(?:ly)?|thank you|thanks)[,.!\s]*$",
    re.IGNORECASE,
)
"""What is left of the joint at the end of the clause before."""
_WISHED: Final = re.compile(_WISH)
_NO_VERBS: Final[frozenset[str]] = frozenset()
_BLANK: Final = "\x00"


def split(request: str, verbs: frozenset[str] = _NO_VERBS) -> list[str]:
    """The clauses of a request in order; one clause, the request itself, where it has no joints.

    :param verbs: in lower case, more words that a new wish may begin with.
    """
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match.group())
        return f"{_BLANK}{len(kept) - 1}{_BLANK}"

    masked = _QUOTED.sub(keep, request.replace(_BLANK, " "))
    joint = _joint(frozenset(verb for verb in verbs if not _WISHED.fullmatch(verb)))
    pieces = [piece for sentence in _STOP.split(masked) for piece in joint.split(sentence)]
    clauses: list[str] = []
    for piece in pieces:
        text = re.sub(rf"{_BLANK}(\d+){_BLANK}", lambda m: kept[int(m.group(1))], piece).strip(" ,\t")
        if not text:
            continue
        short = bool(clauses) and (_short(text) or _short(clauses[-1]))
        if clauses and (short or len(clauses) == MAX_CLAUSES):
            clauses[-1] = f"{clauses[-1]} {text}"
        else:
            clauses.append(text)
    stripped = [_TAIL.sub("", _LEAD.sub("", clause)).strip() or clause for clause in clauses]
    return stripped if len(stripped) > 1 else [request.strip()]


@lru_cache(maxsize=64)
def _joint(verbs: frozenset[str]) -> re.Pattern[str]:
    """A conjunction or comma that a new wish follows."""
    wish = "|".join((_WISH, *map(re.escape, sorted(verbs))))
    return re.compile(
        rf"(?:,\s*(?:and|then|but|or|plus|as well as)?|\s+(?:and|then|plus|as well as|followed by))"
        rf"\s+(?:(?:then|also|finally|please)\s+)*(?=(?:{wish})\b)",
        re.IGNORECASE,
    )


def _short(text: str) -> bool:
    return len(_LEAD.sub("", text).split()) < MIN_WORDS
