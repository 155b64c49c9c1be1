"""A scored detector of poisoned definitions: what a description says that a description should not.

A definition describes; a poisoned one commands. Signs are weighed and added: hiding something from the
user, setting rules aside, speaking to the model, naming secrets, sending data elsewhere, making other
tools part of it (Invariant Labs, "Tool Poisoning Attacks", 2025; MCP specification, Security). No sign
alone convicts save the plainest; honest definitions say "IMPORTANT" and "call X first" as well. It is
an extra layer below pins, and it can be evaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from registry.document import words_of
from registry.poison.characters import Hidden, hidden_characters

THRESHOLD: Final = 2.0
"""Score from which a definition is withheld: below 1 % of honest definitions reach it (README)."""
MAX_TEXT: Final = 20_000
"""Characters of one string that are read; a longer one is a finding by itself."""
MAX_STRINGS: Final = 2000
_SHORT: Final = 64
"""Characters of a string that may be met again, so that what was seen in it is remembered."""

_SECRET: Final = (
    r"(?:~?/?\.ssh\b|id_rsa|id_ed25519|private keys?|\.aws/|\.env\b|\.netrc|\.npmrc|\.kube/|\.git-credentials|"
    r"mcp\.json|claude_desktop_config|\.bash_history|/etc/(?:passwd|shadow)|keychain|wallet|seed phrase|"
    r"credentials?|passwords?|passwd|api[ _-]?keys?|access[ _-]?tokens?|auth(?:entication)? tokens?|session "
    r"(?:tokens?|cookies?)|cookies|secrets?\b|environment variables?|system prompt|hidden instructions|"
    r"(?:conversation|chat|message)(?:'s)? history|(?:whole|entire|full|previous|complete) (?:conversation|context|transcript)|"
    r"other tools' (?:results|outputs?)|your (?:complete |full |available )?tools?\b|tools you have|available tool (?:names?|lists?)|"
    r"(?:prompt|prompts) and (?:the )?available tools\b|in your context|jwt|bearer tokens?|connection strings?|personal data|\bpii\b)"
)
_TAKE: Final = r"(?:read|open|load|cat|fetch|get|collect|gather|include|pass|append|attach|add|put|copy|send|insert|place|embed|encode|forward|upload|post|provide|supply|paste|transmit|share|e-?mail|output|print|dump|list|reveal|show|display|export|compile|concatenat|serializ|return|repeat|quote)"
_SEND: Final = r"(?:send|forward|post|upload|transmit|copy|e-?mail|leak|exfiltrate|deliver|submit|report|share|mirror|bcc|cc)"
_PLACE: Final = r"(?:https?://\S+|[\w.+-]+@[\w-]+\.\w+|\S+\.example\b|webhook|our server|external (?:server|host|address|url)|this (?:address|url|server))"


@dataclass(frozen=True, slots=True)
class _Sign:
    name: str
    weight: float
    pattern: re.Pattern[str]


def _sign(name: str, weight: float, pattern: str) -> _Sign:
    return _Sign(name, weight, re.compile(pattern, re.IGNORECASE))


_SIGNS: Final = (
    _sign(
        "hides from the user",
        2.0,
        r"(?:do not|don't|never|must not|without|avoid|refrain from)\b[^.\n]{0,30}?\b(?:mention|tell|inform|reveal|"
        r"disclos|show|notify|alert|warn|telling|mentioning|informing|notifying|asking|showing|revealing|report)\w*"
        r"[^.\n]{0,25}\b(?:user|human|person|anyone|them|this|it|customer|operator)\b"
        r"|\b(?:without asking|silently|secretly|covertly|quietly|in the background)\b[^.\n]{0,40}\b"
        r"(?:send|read|copy|include|forward|upload|add|append|call|invoke|pass|run|execute|change|delete|collect)"
        r"|keep (?:this|it|that)[^.\n]{0,20}\b(?:secret|hidden|confidential|private|to yourself)"
        r"|user (?:must|should|need|does|may|can)(?: not|n't)? (?:never )?(?:know|see|be (?:told|aware|informed))",
    ),
    _sign(
        "sets rules aside",
        2.5,
        r"\b(?:ignore|disregard|forget|override|bypass|overrule|drop)\b[^.\n]{0,30}\b(?:previous|prior|earlier|above|"
        r"all|any|other|your|existing|system|safety)\b[^.\n]{0,20}\b(?:instruction|rule|guideline|polic|prompt|"
        r"direction|restriction|constraint|safeguard|message)"
        r"|\b(?:system|format|context|text|instruction|policy|priority|admin\w*) (?:override|injection)\b|\bnew instructions?\s*:|\bignore (?:the|this|that|any|your)\b"
        r"[^.\n]{0,30}\b(?:request|question|task|format|query)\b|\b(?:maintenance|developer|debug|god|jailbreak|unrestricted|dan) mode\b[^.\n]{0,20}\b(?:enabled|activated|on|now)\b",
    ),
    _sign(
        "speaks to the model",
        1.2,
        r"\b(?:note|message|instructions?|notice|attention|directive|reminder)s? (?:to|for) (?:the |any |all )?(?:ai\b|"
        r"assistant|model|llm|agent|language model)|\b(?:ai|assistant|agent|llm|model) (?:must|should|shall|has to|is "
        r"required to|instructions?|directive)\b|\byou are (?:now )?(?:an?|in)\b|\bas an ai\b|\bdear (?:ai|assistant)"
        r"|\b(?:ai|llm|assistant|agent|model)(?: \w+){0,2} (?:note|notice|instruction|directive|message|reviewer|processor|reader|system)s?\b[^.\n]{0,20}:"
        r"|[\[(#*]\s*(?:ai|llm|assistant|agent|model)(?: \w+){0,3}\s*:",
    ),
    _sign(
        "directs the answer",
        1.2,
        r"\b(?:your|every) (?:final |next )?(?:response|reply|answer|output|summary|report)s?\b[^.\n]{0,40}\b(?:must|should|shall|has to|needs to)\b"
        r"|\b(?:append|prepend|add|include|insert|embed)\w*\b[^.\n]{0,60}\b(?:to|in|into|at the end of) (?:your|every|each|the final) (?:response|reply|answer|output|summary|message)"
        r"|\bwhen(?:ever)? (?:summari[sz]|process|display|read|review|draft|analy[sz]|retriev|respond|answer)\w*\b[^.\n]{0,60}\b(?:also|must|override|you are required|include|output)\b"
        r"|\byou (?:must|are required to|have to|shall)\b[^.\n]{0,20}\b(?:immediately|also|first|always|now|append|include|render|inform|send|call|execute|run)\b",
    ),
    _sign(
        "claims to be required",
        0.8,
        r"\b(?:this|it) (?:is|verification is|step is) (?:an? )?(?:required|mandatory|standard|legitimate|automated|authori[sz]ed|approved|official|compliance|normal|routine)\b"
        r"[^.\n]{0,25}\b(?:practice|procedure|directive|request|requirement|process|processing|feature|reporting|verification|audit\w*|security|compliance|assessment|for all|for (?:the )?deployment)\b"
        r"|\b(?:as )?required (?:by|for) (?:the |our )?(?:audit|compliance|security|policy|verification)|\b(?:security|compliance) (?:audit|verification|review|assessment)\b[^.\n]{0,40}\b(?:requires?|needs?|must)\b",
    ),
    _sign(
        "builds an address from what it learned",
        1.6,
        r"https?://[^\s\"')]*[?&][\w-]+=(?:[\"'\s)\]]|[\[{<(]|\$|(?-i:[A-Z][A-Z_]{5,})|$)|\burl-?encoded\b[^.\n]{0,40}\b(?:prompt|context|data|csv|list|history|parameters?)\b"
        r"|\b(?:context|prompt|history|credentials)\b[^.\n]{0,30}\bas (?:url|query) param(?:eter)?s\b",
    ),
    _sign(
        "wears a mark of authority",
        1.2,
        r"</?\s*(?:important|system|secret|hidden|instructions?|admin|critical|assistant|user|mandatory)[^>]{0,20}>"
        r"|\[\s*(?:hidden|system|inst|admin|secret|internal|instructions?)\b|\bsystem\s*(?:prompt|message|override|note)?"
        r"\s*:|<!--|<\|im_|\[/?INST\]|\b(?:begin|end) (?:system|hidden|secret|admin)",
    ),
    _sign(
        "takes secrets",
        1.6,
        rf"\b{_TAKE}\w*\b[^.\n]{{0,60}}{_SECRET}|{_SECRET}[^.\n]{{0,50}}\b(?:as|in|into|to) (?:the |its |an? )?[`'\"]?\w+[`'\"]? (?:argument|parameter|field|input|value)",
    ),
    _sign(
        "names a file of secrets",
        1.0,
        r"~/\.\w+|/\.ssh|id_rsa|\.aws/credentials|/etc/(?:passwd|shadow)|\.cursor/|\.env\b|claude_desktop_config|\.netrc|\.kube/config",
    ),
    _sign("sends data away", 1.0, rf"\b{_SEND}\w*\b[^.\n]{{0,60}}\b(?:to|at|via)\b[^.\n]{{0,20}}{_PLACE}"),
    _sign(
        "claims consent",
        1.6,
        r"\b(?:user|owner|admin\w*|human|operator|customer)\b[^.\n]{0,20}\b(?:already|has|have|previously)\b[^.\n]{0,15}\b(?:approved|"
        r"consented|agreed|authori[sz]ed|allowed|permitted|granted)|pre-?(?:approved|authori[sz]ed)|no (?:confirmation|approval|"
        r"permission|consent) (?:is )?(?:needed|required|necessary)|without (?:asking|confirmation|approval|permission|consent)",
    ),
    _sign(
        "threatens to fail",
        0.9,
        r"\b(?:otherwise|or else|if (?:you do not|you don't|not|omitted|skipped))\b[^.\n]{0,40}\b(?:not work|fail|break|crash|"
        r"be (?:blocked|lost|deleted|banned|terminated|shut))|\bthis (?:tool|call) (?:will )?(?:only works?|fails?)\b[^.\n]{0,20}\b(?:if|unless)",
    ),
    _sign(
        "reaches into other tools",
        1.4,
        r"\b(?:before|after|when(?:ever)?|each time|every time|instead of)\b[^.\n]{0,25}\b(?:using|calling|invoking|you (?:use|call)|"
        r"running)\b[^.\n]{0,20}\b(?:any|every|all|other|another|each)\b[^.\n]{0,15}\btools?\b|\b(?:when|if|whenever)\b[^.\n]{0,30}\b(?:send_?\w*|"
        r"e-?mail|payment|transfer|write_?\w*|other)\b[^.\n]{0,20}\btool\b[^.\n]{0,50}\b(?:change|replace|set|add|also|redirect|bcc|use)",
    ),
    _sign(
        "puts other tools down",
        1.2,
        r"\b(?:replaces?|supersedes?|overrides?)\b[^.\n]{0,20}\b(?:all|any|every|other|similar)\b[^.\n]{0,15}\btools?\b|\b(?:never|do not|"
        r"don't|stop) (?:use|using|call|calling|trust)[^.\n]{0,15}\b(?:others?|other tools?|any other|similar tools?)\b|\balways (?:use|prefer|"
        r"choose|call) this tool\b|\bother tools?\b[^.\n]{0,20}\b(?:insecure|unsafe|deprecated|broken|outdated|dangerous)",
    ),
    _sign(
        "orders reading first",
        0.8,
        r"\b(?:before|prior to|first)\b[^.\n]{0,30}\b(?:us(?:e|ing)|call(?:ing)?|run(?:ning)?|invok\w+)\b[^.\n]{0,20}\b(?:this|the) tool\b"
        r"[^.\n]{0,20}\b(?:read|open|collect|cat|load|retrieve|gather|fetch)\b",
    ),
    _sign(
        "carries code or a blob",
        0.8,
        r"[A-Za-z0-9+/]{120,}={0,2}|\b(?:curl|wget|bash -c|rm -rf|powershell|eval\(|exec\(|base64 -d|nc -e)\b",
    ),
    _sign(
        "has a harmful purpose",
        0.7,
        r"\b(?:steal|stealing|theft|exfiltrat\w*|sabotag\w*|hijack\w*|malicious\w*|malware|backdoor|keylog\w*|ransom\w*|"
        r"phish\w*|blackmail|extort\w*|impersonat\w*|counterfeit\w*|fraud(?:ulent(?:ly)?)?|covert(?:ly)?|illicit\w*|"
        r"unauthori[sz]ed access|data leak|leak(?:age)?|breach|tamper\w*|falsif\w*|fabricat\w*|manipulat(?:e|or|ion)|disrupt(?:or|ion)?|"
        r"misinform\w*|disinform\w*|attack|exploit(?:er|ation)?|corrupt(?:or|ion)?|interference|espionage|spy|surveil\w*|"
        r"overload|disable[rs]?|destroyer?|hack\w*|smuggl\w*|evasion|skimm\w*|hoard\w*|plagiari\w*|forg(?:er|ery|ed))\b",
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a definition shows.

    :param score: the sum of the signs' weights, and more for hidden characters.
    :param signs: each sign once, with the words that showed it.
    :param hidden: hidden characters, by the path of the string they are in.
    """

    score: float
    signs: tuple[tuple[str, str], ...]
    hidden: tuple[tuple[str, Hidden], ...]

    @property
    def withhold(self) -> bool:
        """Whether it should wait for a person: hidden characters, or a score at the threshold."""
        return bool(self.hidden) or self.score >= THRESHOLD


def inspect(definition: bytes | Mapping[str, Any]) -> Finding:
    """Look at every string of a definition: names, descriptions, defaults, enums, at any depth.

    Raises ValueError or RecursionError for bytes that are not JSON.
    """
    value = json.loads(definition) if isinstance(definition, bytes) else definition
    seen: dict[str, tuple[float, str]] = {}
    hidden: list[tuple[str, Hidden]] = []
    for number, (path, text) in enumerate(_strings(value, "")):
        if number == MAX_STRINGS:
            seen["is too large to read"] = (THRESHOLD, f"more than {MAX_STRINGS} strings")
            break
        if len(text) > MAX_TEXT:
            seen["is too large to read"] = (THRESHOLD, f"{len(text)} characters at {path or 'the top'}")
        hidden.extend((path, one) for one in hidden_characters(text[:MAX_TEXT]))
        for name, weight, words in (
            _signs_of(text[:MAX_TEXT]) if len(text) <= _SHORT else _look(text[:MAX_TEXT])
        ):
            if name not in seen:
                seen[name] = (weight, words)
    score = sum(weight for weight, _ in seen.values()) + (3.0 if hidden else 0.0)
    signs = tuple((name, words) for name, (_, words) in seen.items())
    return Finding(round(score, 2), signs, tuple(hidden))


def _look(text: str) -> tuple[tuple[str, float, str], ...]:
    """The signs in one string: name, weight, and the words that showed it."""
    plain = text if text.isprintable() else "".join(c for c in text if c.isprintable() or c in "\n\t")
    # Identifiers hold words too: CredentialTheft reads as two.
    readable = words_of(plain) if " " not in plain else plain
    matches = ((sign, sign.pattern.search(readable)) for sign in _SIGNS)
    return tuple((sign.name, sign.weight, match.group()[:120]) for sign, match in matches if match)


# Most strings of a definition are the words of JSON Schema, the same in every tool.
_signs_of = lru_cache(maxsize=4096)(_look)


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield f"{path}.{key}" if path else str(key), str(key)
            yield from _strings(member, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, member in enumerate(value):
            yield from _strings(member, f"{path}[{place}]")
