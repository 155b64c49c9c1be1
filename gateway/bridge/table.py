"""The table of rewrites: everything that changes on its way between a caller and a server.

A message goes from one revision of the protocol to another, and changes only where a row says so.
``gateway.bridge.crossing`` executes the rows; the tests read the same rows to predict what arrives.
No row holds between equal revisions, so a call that crosses nothing is passed on byte for byte.

``CROSSINGS`` rewrite messages. ``BRIDGED`` are the differences that no rewrite of one message can
mend; each names the code that does. ``ROUTED`` is what changes although nothing is crossed, because
one endpoint stands for many servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from gateway import protocol
from gateway.bridge import rewrites as do
from gateway.bridge.rewrites import Leg
from gateway.jsonrpc import Shallow

Rewrite: TypeAlias = Callable[[Shallow, Leg], Shallow]


class Part(StrEnum):
    """Which message of an exchange a row is about, and what of it the rewrite is given."""

    PARAMS = "params"
    """The params of a caller's request."""
    RESULT = "result"
    """The result of the server's answer."""
    ERROR = "error"
    """The server's answer where it is an error: ``{"error": …}``, or ``{"result": …}`` afterwards."""
    ASK = "ask"
    """The params of what a server asks of a client: sampling, elicitation, roots."""
    ANSWER = "answer"
    """The client's result for that."""
    ITEM = "item"
    """One item of a list, as the client is shown it."""


class Span(NamedTuple):
    """Revisions from one to another, both included. Their names sort by age."""

    first: str
    last: str

    def __contains__(self, revision: object) -> bool:
        return isinstance(revision, str) and self.first <= revision <= self.last


def _until(revision: str) -> Span:
    return Span(protocol.HANDSHAKE_VERSIONS[-1], revision)


def _since(revision: str) -> Span:
    return Span(revision, protocol.STATELESS_VERSIONS[0])


HANDSHAKE: Final = _until(protocol.LATEST_HANDSHAKE)
STATELESS: Final = _since(protocol.STATELESS_VERSIONS[-1])
ANY_METHOD: Final = frozenset({"*"})

CALL: Final = frozenset({"tools/call"})
READ: Final = frozenset({"resources/read"})
PROMPT: Final = frozenset({"prompts/get"})
SAMPLE: Final = frozenset({"sampling/createMessage"})
ELICIT: Final = frozenset({"elicitation/create"})
TOOL: Final = frozenset({"tools/list"})


@dataclass(frozen=True, slots=True)
class Row:
    """One rewrite.

    :param what: what changes, in a few words.
    :param caller: revisions of the client it is for.
    :param server: revisions of the server it is for.
    :param methods: of the request (for ``ASK`` and ``ANSWER``, the server's); ``*`` is every one.
    :param section: where the specification has the rule.
    """

    what: str
    caller: Span
    server: Span
    part: Part
    methods: frozenset[str]
    rewrite: Rewrite
    section: str

    def holds(self, part: Part, caller: str, server: str, method: str) -> bool:
        """Whether the row is for such a message."""
        return (
            part is self.part
            and caller in self.caller
            and server in self.server
            and (self.methods is ANY_METHOD or method in self.methods)
        )


CROSSINGS: Final = (
    # a caller's params
    Row(
        "what each request says of its client goes: a session has said it",
        STATELESS, HANDSHAKE, Part.PARAMS, ANY_METHOD, do.drop_request_meta,
        "2026-07-28 Base Protocol: _meta, Per-request protocol fields",
    ),
    Row(
        "each request says what the session said, and nothing else may say it",
        HANDSHAKE, STATELESS, Part.PARAMS, ANY_METHOD, do.add_request_meta,
        "2026-07-28 Base Protocol: _meta, Per-request protocol fields; Logging: Per-request log level",
    ),
    Row(
        "members that only a retry has are not a handshake-era client's to send",
        HANDSHAKE, STATELESS, Part.PARAMS, ANY_METHOD, do.drop_retry_fields,
        "2026-07-28 Multi Round-Trip Requests: Client Requirements 2 and 4",
    ),
    # results
    Row(
        "resultType is complete, whatever a field of that name meant before",
        STATELESS, HANDSHAKE, Part.RESULT, ANY_METHOD, do.add_result_type,
        "2026-07-28 Base Protocol: ResultType",
    ),
    Row(
        "a result without caching hints is stale at once and one caller's own",
        STATELESS, HANDSHAKE, Part.RESULT, READ, do.add_cache_hints,
        "2026-07-28 Caching: Cacheable Results",
    ),
    Row(
        "the server names itself in the result, as it did in its handshake",
        STATELESS, HANDSHAKE, Part.RESULT, ANY_METHOD, do.add_server_info,
        "2026-07-28 Base Protocol: _meta, Per-response protocol fields",
    ),
    Row(
        "resultType goes; only a complete result can be told",
        HANDSHAKE, STATELESS, Part.RESULT, ANY_METHOD, do.drop_result_type,
        "2026-07-28 Base Protocol: ResultType",
    ),
    Row(
        "caching hints go",
        HANDSHAKE, STATELESS, Part.RESULT, READ, do.drop_cache_hints,
        "2026-07-28 Caching: Cacheable Model",
    ),
    Row(
        "serverInfo goes: the session has said it",
        HANDSHAKE, STATELESS, Part.RESULT, ANY_METHOD, do.drop_server_info,
        "2026-07-28 Base Protocol: _meta, Per-response protocol fields",
    ),
    Row(
        "structuredContent that is no object becomes text",
        HANDSHAKE, STATELESS, Part.RESULT, CALL, do.structure_as_text,
        "2026-07-28 Key Changes, Minor 10; Tools: Structured Content",
    ),
    Row(
        "structuredContent without any content is said as text too",
        _until("2025-03-26"), _since("2025-06-18"), Part.RESULT, CALL, do.structure_told,
        "2025-06-18 Key Changes, Major 2; Tools: Structured Content",
    ),
    Row(
        "a resource link becomes text that names it",
        _until("2025-03-26"), _since("2025-06-18"), Part.RESULT, CALL, do.links_in_content,
        "2025-06-18 Key Changes, Major 7; Tools: Resource Links",
    ),
    Row(
        "a resource link becomes text that names it",
        _until("2025-03-26"), _since("2025-06-18"), Part.RESULT, PROMPT, do.links_in_messages,
        "2025-06-18 Key Changes, Major 7",
    ),
    Row(
        "audio becomes an embedded binary resource",
        _until("2024-11-05"), _since("2025-03-26"), Part.RESULT, CALL, do.audio_in_content,
        "2025-03-26 Key Changes, Other schema changes 2",
    ),
    Row(
        "audio becomes an embedded binary resource",
        _until("2024-11-05"), _since("2025-03-26"), Part.RESULT, PROMPT, do.audio_in_messages,
        "2025-03-26 Key Changes, Other schema changes 2",
    ),
    # errors
    Row(
        "-32002 for an unknown resource becomes -32602",
        STATELESS, HANDSHAKE, Part.ERROR, ANY_METHOD, do.not_found_is_invalid,
        "2026-07-28 Key Changes, Minor 6; Base Protocol: Error Codes",
    ),
    Row(
        "-32602 for a resource becomes -32002",
        HANDSHAKE, STATELESS, Part.ERROR, READ, do.invalid_is_not_found,
        "2025-11-25 Resources: Error Handling",
    ),
    Row(
        "a code that is reserved by now, and meant something else, becomes -32603 and is kept in data",
        STATELESS, HANDSHAKE, Part.ERROR, ANY_METHOD, do.unreserve,
        "2026-07-28 Base Protocol: Error Codes",
    ),
    Row(
        "-32042 becomes input_required with the URLs to visit, or -32021 where the client visits none",
        STATELESS, HANDSHAKE, Part.ERROR, ANY_METHOD, do.urls_required,
        "2025-11-25 Elicitation: URL Elicitation Required Error; 2026-07-28 Base Protocol: Error Codes",
    ),
    # what a server asks of a client
    Row(
        "a URL to visit gets an elicitationId",
        HANDSHAKE, STATELESS, Part.ASK, ELICIT, do.add_elicitation_id,
        "2026-07-28 Key Changes, Minor 11",
    ),
    Row(
        "a URL to visit has no elicitationId",
        STATELESS, HANDSHAKE, Part.ASK, ELICIT, do.drop_elicitation_id,
        "2026-07-28 Key Changes, Minor 11",
    ),
    Row(
        "nobody reports progress of an input request",
        STATELESS, HANDSHAKE, Part.ASK, ANY_METHOD, do.drop_progress_token,
        "2026-07-28 Progress: requests of the client alone have progress",
    ),
    Row(
        "titled choices become enumNames; choices of several are refused",
        _until("2025-06-18"), _since("2025-11-25"), Part.ASK, ELICIT, do.plain_form,
        "2025-11-25 Key Changes, Major 5",
    ),
    Row(
        "a message of many blocks becomes a message each",
        _until("2025-06-18"), _since("2025-11-25"), Part.ASK, SAMPLE, do.split_messages,
        "2025-11-25 Key Changes, Major 7",
    ),
    Row(
        "audio is refused: that revision has no such content, and no resource may stand there",
        _until("2024-11-05"), _since("2025-03-26"), Part.ASK, SAMPLE, do.refuse_audio,
        "2025-03-26 Key Changes, Other schema changes 2",
    ),
    Row(
        "a message of many blocks becomes one block of text, where it is nothing but text",
        _since("2025-11-25"), _until("2025-06-18"), Part.ANSWER, SAMPLE, do.join_blocks,
        "2025-11-25 Key Changes, Major 7",
    ),
    # lists
    Row(
        "an output schema that is not of type object goes, as does such structuredContent",
        HANDSHAKE, STATELESS, Part.ITEM, TOOL, do.drop_output_schema,
        "2026-07-28 Key Changes, Minor 10",
    ),
    Row(
        "properties that are boolean schemas become objects that say the same",
        HANDSHAKE, STATELESS, Part.ITEM, TOOL, do.object_properties,
        "2026-07-28 Key Changes, Minor 10; JSON Schema 2020-12, 4.3.2",
    ),
)  # fmt: skip


class Bridged(NamedTuple):
    """A difference that some code bridges.

    :param by: ``module:name`` of that code.
    """

    what: str
    caller: Span
    server: Span
    by: str
    section: str


BRIDGED: Final = (
    Bridged(
        "server/discover is answered for all servers",
        STATELESS, HANDSHAKE, "gateway.endpoint.introduction:discover_result", "2026-07-28 Discovery",
    ),
    Bridged(
        "initialize is answered for all servers, in the revision the client asks for",
        HANDSHAKE, STATELESS, "gateway.endpoint.dispatch:Dispatcher.initialize",
        "2025-11-25 Lifecycle: Version Negotiation",
    ),
    Bridged(
        "ping is answered for servers that no longer know it",
        HANDSHAKE, STATELESS, "gateway.endpoint.dispatch:Dispatcher._ping", "2026-07-28 Key Changes, Major 5",
    ),
    Bridged(
        "what a server asks in the midst of a call is returned as input_required, and the retry goes on",
        STATELESS, HANDSHAKE, "gateway.bridge.parking:Parking", "2026-07-28 Multi Round-Trip Requests",
    ),
    Bridged(
        "a call that fails because its client lacks what the server asked for is -32021",
        STATELESS, HANDSHAKE, "gateway.bridge.parking:ParkingSite", "2026-07-28 Base Protocol: Error Codes",
    ),
    Bridged(
        "a server that does not say whom it asks is given a connection for each client it might mean",
        STATELESS, HANDSHAKE, "gateway.upstream.lanes:Lanes", "2026-07-28 Multi Round-Trip Requests",
    ),
    Bridged(
        "inputRequests become live requests, and the call is repeated with their answers",
        HANDSHAKE, STATELESS, "gateway.bridge.rounds:gather_input", "2026-07-28 Multi Round-Trip Requests",
    ),
    Bridged(
        "the log level of a request is set at the server",
        STATELESS, HANDSHAKE, "gateway.interests:Interests.log_from", "2025-11-25 Logging: Setting Log Level",
    ),
    Bridged(
        "the log level of a session goes into each request",
        HANDSHAKE, STATELESS, "gateway.endpoint.caller:Caller.said", "2026-07-28 Logging: Per-request log level",
    ),
    Bridged(
        "subscriptions/listen is fed by resources/subscribe and list_changed",
        STATELESS, HANDSHAKE, "gateway.endpoint.notices:Notices.listening", "2026-07-28 Subscriptions",
    ),
    Bridged(
        "resources/subscribe and the GET stream are fed by subscriptions/listen",
        HANDSHAKE, STATELESS, "gateway.upstream.listening:Listening", "2026-07-28 Subscriptions",
    ),
    Bridged(
        "a client that closes its response, or sends notifications/cancelled, cancels in the server's way",
        STATELESS, HANDSHAKE, "gateway.endpoint.stream:DisconnectWatch", "2026-07-28 Cancellation",
    ),
    Bridged(
        "a batch is taken apart, and its answers are one array",
        _until("2025-03-26"), _since("2025-06-18"), "gateway.endpoint.http:HttpEndpoint._batch",
        "2025-03-26 Key Changes, Major 3; 2025-06-18 Key Changes, Major 1",
    ),
    Bridged(
        "a client is asked only for what its revision and its capabilities have",
        _until("2025-03-26"), _since("2025-06-18"), "gateway.bridge.features:wanted_feature",
        "2025-06-18 Key Changes, Major 6",
    ),
    Bridged(
        "roots/list and others outside any call are refused: nobody can tell whom they are for",
        STATELESS, HANDSHAKE, "gateway.upstream.base:Connection.serve", "2025-11-25 Roots: Capabilities",
    ),
    Bridged(
        "an unknown method is HTTP 404 with -32601 for the one, HTTP 200 for the other",
        HANDSHAKE, STATELESS, "gateway.endpoint.dispatch:Dispatcher.handle",
        "2026-07-28 Streamable HTTP: Protocol Version Header",
    ),
    Bridged(
        "headers that repeat parts of the body are checked and made anew",
        HANDSHAKE, STATELESS, "gateway.upstream.mirror:param_headers",
        "2026-07-28 Streamable HTTP: Request Metadata",
    ),
)  # fmt: skip

ROUTED: Final[Mapping[str, str]] = {
    "id": "a request gets an id of its own on each leg (JSON-RPC 2.0, 4)",
    "params.name, params.ref.name, Mcp-Name": "the server's own name for the tool or prompt",
    "items[].name": "the name that the gateway gives a tool or prompt",
    "params._meta.progressToken": "unique on each leg, both ways (2025-11-25, Progress)",
    "params._meta['io.modelcontextprotocol/subscriptionId']": "each leg's own (2026-07-28, Subscriptions)",
    "requestState": "sealed on its way through the client (2026-07-28, Server Requirements 4 and 5)",
    "params.inputResponses": "given to the call that asked",
}
"""What is each leg's own, with or without a crossing."""

_METHODS: Final = frozenset().union(*(row.methods for row in CROSSINGS))


def rewrites(part: Part, caller: str, server: str, method: str) -> tuple[Rewrite, ...]:
    """What changes in such a message; nothing, for nearly all."""
    return _rewrites(part, caller, server, method if method in _METHODS else "")


@lru_cache(maxsize=4096)
def _rewrites(part: Part, caller: str, server: str, method: str) -> tuple[Rewrite, ...]:
    return tuple(row.rewrite for row in CROSSINGS if row.holds(part, caller, server, method))
