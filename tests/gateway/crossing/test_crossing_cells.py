"""Every feature in the four cells: a client of one era alone, a server of one era alone, stdio and HTTP."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import MCPError
from yard import WAIT, Yard, names_of, over_http, over_stdio, text_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:.*(deprecated|removed) as of 2026-07-28"),
]


class Person:
    """Answers whatever a client may be asked, and remembers it."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[Any] = []

    async def elicit(self, context: Any, params: Any) -> t.ElicitResult:
        self.asked.append(params)
        if "action" in self.answers:
            return t.ElicitResult(action=self.answers["action"])
        if params.mode == "url":
            return t.ElicitResult(action="accept")
        fields = params.requested_schema["properties"]
        return t.ElicitResult(action="accept", content={key: self.answers.get(key, True) for key in fields})

    async def sample(self, context: Any, params: Any) -> t.CreateMessageResult:
        self.asked.append(params)
        content = t.TextContent(type="text", text=f"I say {params.messages[0].content.text}")
        return t.CreateMessageResult(role="assistant", content=content, model="m", stop_reason="endTurn")

    async def roots(self, context: Any) -> t.ListRootsResult:
        self.asked.append("roots")
        return t.ListRootsResult(roots=[t.Root(uri="file:///home/me", name="home")])


def client(
    yard: Yard, era: str, person: Person | None = None, **more: Any
) -> AbstractAsyncContextManager[Any]:
    """An SDK client that can be asked for everything, where a person is there to answer."""
    if person is not None:
        more |= {
            "elicitation_callback": person.elicit,
            "sampling_callback": person.sample,
            "list_roots_callback": person.roots,
        }
    return over_http(yard, era, **more)


async def test_text_pictures_sounds_and_resources_come_as_they_are(yard: Yard, era: str) -> None:
    async with client(yard, era) as c:
        assert text_of(await c.call_tool("test_simple_text")).startswith("This is a simple text")
        (picture,) = (await c.call_tool("test_image_content")).content
        assert (picture.type, picture.mime_type) == ("image", "image/png")
        (sound,) = (await c.call_tool("test_audio_content")).content
        assert sound.type == "audio"
        assert base64.b64decode(sound.data)[:4] == b"RIFF"
        (resource,) = (await c.call_tool("test_embedded_resource")).content
        assert str(resource.resource.uri) == "test://embedded-resource"


async def test_arguments_and_vendor_metadata_arrive_whole(yard: Yard, era: str) -> None:
    arguments = {"n": 12345678901234567890, "deep": [{"a": None, "b": [1.5, "ü🌍"]}]}
    meta = {
        "com.example/x": {"y": [1, None]},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    async with client(yard, era) as c:
        result = await c.call_tool("echo_request", arguments, meta=meta)
    got = result.structured_content
    assert got["arguments"] == arguments
    assert meta.items() <= got["_meta"].items()
    assert result.meta["example.test/kept"] == {"deep": [1, {"x": None}]}


async def test_a_server_is_told_of_its_client_in_its_own_way(yard: Yard, server: str, era: str) -> None:
    async with client(yard, era, Person()) as c:
        got = (await c.call_tool("echo_request", {})).structured_content
    reserved = {
        key.partition("/")[2] for key in got.get("_meta", {}) if key.startswith("io.modelcontextprotocol/")
    }
    if server.startswith("handshake"):
        assert not reserved
    else:
        assert {"protocolVersion", "clientCapabilities", "clientInfo"} <= reserved
        told = got["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        assert {"sampling", "elicitation", "roots"} <= told.keys()


async def test_a_tools_failure_an_unknown_tool_and_a_broken_call_are_told_apart(yard: Yard, era: str) -> None:
    async with client(yard, era) as c:
        failed = await c.call_tool("test_error_handling")
        assert failed.is_error
        assert "intentionally" in text_of(failed)
        with pytest.raises(MCPError):
            await c.call_tool("no_such_tool")


async def test_the_clients_model_is_asked(yard: Yard, era: str) -> None:
    person = Person()
    async with client(yard, era, person) as c:
        answer = await c.call_tool("test_sampling", {"prompt": "hello"})
    assert text_of(answer) == "LLM response: I say hello"
    assert person.asked[0].max_tokens == 100


async def test_a_person_fills_in_a_form(yard: Yard, era: str) -> None:
    async with client(yard, era, Person(response="blue")) as c:
        answer = await c.call_tool("test_elicitation", {"message": "Which colour?"})
    assert text_of(answer) == 'User response: action=accept, content={"response": "blue"}'


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_person_does_not_fill_in_a_form(yard: Yard, era: str, action: str) -> None:
    async with client(yard, era, Person(action=action)) as c:
        answer = await c.call_tool("test_elicitation", {"message": "Which colour?"})
    assert text_of(answer) == f"User response: action={action}, content={{}}"


async def test_a_person_is_sent_to_a_url(yard: Yard, era: str) -> None:
    person = Person()
    async with client(yard, era, person) as c:
        answer = await c.call_tool("elicit_url", {"url": "https://login.example/"})
    assert text_of(answer) == "url: accept"
    (asked,) = person.asked
    assert (asked.mode, asked.url) == ("url", "https://login.example/")


async def test_defaults_and_choices_of_a_form_arrive_whole(yard: Yard, era: str) -> None:
    person = Person(action="decline")
    async with client(yard, era, person) as c:
        await c.call_tool("test_elicitation_sep1034_defaults")
        await c.call_tool("test_elicitation_sep1330_enums")
    defaults, choices = (params.requested_schema["properties"] for params in person.asked)
    assert (defaults["age"]["default"], defaults["score"]["default"]) == (30, 95.5)
    assert choices["titledSingle"]["oneOf"][0] == {"const": "low", "title": "Low Priority"}
    assert choices["titledMulti"]["items"]["anyOf"][1] == {"const": "bug", "title": "Bug Fix"}
    assert choices["legacyEnum"]["enumNames"][2] == "Large Size"


async def test_roots_are_asked_of_a_client_where_calls_are_its_own(yard: Yard, server: str, era: str) -> None:
    person = Person()
    async with client(yard, era, person) as c:
        if server.startswith("handshake"):  # a connection that clients share has no roots
            with pytest.raises(MCPError, match="roots"):
                await c.call_tool("test_input_required_result_list_roots")
            return
        answer = await c.call_tool("test_input_required_result_list_roots")
    assert text_of(answer) == "Client exposed 1 root(s)."


async def test_two_rounds_of_questions_remember_the_first(yard: Yard, era: str) -> None:
    async with client(yard, era, Person(name="Ada", color="green")) as c:
        answer = await c.call_tool("test_input_required_result_multi_round")
    assert text_of(answer) == "Ada likes green."


async def test_two_questions_at_once_get_their_own_answers(yard: Yard, era: str) -> None:
    person = Person(name="Ada")
    async with client(yard, era, person) as c:
        answer = await c.call_tool("test_input_required_result_capabilities")
    assert text_of(answer) == "asked for sample, ask"
    assert {type(asked).__name__ for asked in person.asked} == {
        "CreateMessageRequestParams",
        "ElicitRequestFormParams",
    }


async def test_a_servers_state_comes_back_to_it(yard: Yard, era: str) -> None:
    async with client(yard, era, Person()) as c:
        answer = await c.call_tool("test_input_required_result_request_state")
    assert text_of(answer) == "state-ok: confirmation received"


async def test_a_prompt_asks_for_its_context(yard: Yard, era: str) -> None:
    async with client(yard, era, Person(context="Bern")) as c:
        prompt = await c.get_prompt("test_input_required_result_prompt")
    assert prompt.messages[0].content.text == "Use the following context: Bern"


async def test_a_client_that_cannot_be_asked_is_told_so(yard: Yard, era: str) -> None:
    async with client(yard, era) as c:
        with pytest.raises(MCPError) as refusal:
            await c.call_tool("test_elicitation", {"message": "Which colour?"})
    assert refusal.value.error.message
    async with client(yard, era) as c:  # and nothing is broken
        assert text_of(await c.call_tool("test_simple_text"))


async def test_log_messages_come_from_the_level_that_was_asked_for(yard: Yard, era: str) -> None:
    seen: list[tuple[str, Any]] = []

    async def logged(params: t.LoggingMessageNotificationParams) -> None:
        seen.append((params.level, params.data))

    level = {"log_level": "warning"} if era != "legacy" else {}
    async with client(yard, era, logging_callback=logged, **level) as c:
        if era == "legacy":
            await c.set_logging_level("warning")
        await c.call_tool("test_logging_tool")
    assert seen == [("warning", "a warning message"), ("error", "a error message")]


async def test_no_log_messages_come_to_a_request_that_asks_for_none(yard: Yard) -> None:
    seen: list[Any] = []

    async def logged(params: Any) -> None:
        seen.append(params)

    async with client(yard, "2026-07-28", logging_callback=logged) as c:
        await c.call_tool("test_logging_tool")
    assert seen == []


async def test_progress_comes_in_order_before_the_answer(yard: Yard, era: str) -> None:
    seen: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total))

    async with client(yard, era) as c:
        await c.call_tool("test_tool_with_progress", progress_callback=progress)
    assert seen == [(0, 100), (50, 100), (100, 100)]


async def test_progress_goes_on_while_a_person_is_asked(yard: Yard, server: str, era: str) -> None:
    seen: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(done)

    async with client(yard, era, Person(name="Ada")) as c:
        answer = await c.call_tool("test_streaming_elicitation", progress_callback=progress)
    assert text_of(answer) == "Hello, Ada!"
    assert seen[0] == 0
    assert seen[-1] == 2


async def test_a_call_that_is_given_up_is_cancelled_at_the_server(yard: Yard, server: str, era: str) -> None:
    begun = anyio.Event()
    label = f"{server} {era}"

    async def progress(*_: Any) -> None:
        begun.set()

    async with client(yard, era) as c:
        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    await c.call_tool("wait", {"label": label}, progress_callback=progress)

                tasks.start_soon(wait)
                await begun.wait()
                tasks.cancel_scope.cancel()
            while label not in (await c.call_tool("cancelled")).structured_content["labels"]:
                pass


async def test_prompts_are_filled_in_and_arguments_completed(yard: Yard, era: str) -> None:
    async with client(yard, era) as c:
        prompt = await c.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
        assert "arg1='a', arg2='b'" in prompt.messages[0].content.text
        reference = t.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        found = await c.complete(reference, {"name": "arg1", "value": "par"})
        assert found.completion.values == ["paris", "park", "party"]
        with pytest.raises(MCPError):
            await c.get_prompt("no_such_prompt")


async def test_resources_are_read_and_unknown_ones_are_told_in_the_clients_way(yard: Yard, era: str) -> None:
    async with client(yard, era) as c:
        (text,) = (await c.read_resource("test://static-text")).contents
        assert text.text.startswith("This is the content")
        (data,) = (await c.read_resource("test://template/7/data")).contents
        assert '"id": "7"' in data.text
        with pytest.raises(MCPError) as unknown:
            await c.read_resource("test://nothing")
    assert unknown.value.error.code == (-32002 if era == "legacy" else -32602)
    assert unknown.value.error.data == {"uri": "test://nothing"}


async def test_a_result_is_never_cached_for_others_where_its_server_did_not_say_so(
    yard: Yard, server: str
) -> None:
    async with client(yard, "2026-07-28") as c:
        result = await c.read_resource("test://static-text")
    hints = (result.cache_scope, result.ttl_ms)
    assert hints == (("private", 0) if server.startswith("handshake") else ("public", 1000))


async def heard(yard: Yard, era: str, wanted: dict[str, Any], act: Callable[[Any], Awaitable[Any]]) -> str:
    """The first notice that comes of an action."""
    if era != "legacy":
        async with client(yard, era) as c, c.listen(**wanted) as subscription:
            await act(c)
            with anyio.fail_after(WAIT):
                return type(await anext(aiter(subscription))).__name__
    notices: list[str] = []
    told = anyio.Event()

    async def handler(message: Any) -> None:
        notices.append(message.method)
        told.set()

    async with client(yard, era, message_handler=handler) as c:
        for uri in wanted.get("resource_subscriptions", ()):
            await c.subscribe_resource(uri)
        await act(c)
        with anyio.fail_after(WAIT):
            await told.wait()
    return notices[0]


async def test_a_changed_list_is_announced(yard: Yard, era: str) -> None:
    async def change(c: Any) -> None:
        await c.call_tool("test_trigger_tool_change")

    name = await heard(yard, era, {"tools_list_changed": True}, change)
    assert name in ("notifications/tools/list_changed", "ToolsListChanged")


async def test_a_change_of_a_watched_resource_is_announced(yard: Yard, era: str) -> None:
    async def change(c: Any) -> None:
        await c.call_tool("touch_watched_resource")

    name = await heard(yard, era, {"resource_subscriptions": ["test://watched-resource"]}, change)
    assert name in ("notifications/resources/updated", "ResourceUpdated")


async def test_schemas_keep_every_keyword(yard: Yard, era: str) -> None:
    async with client(yard, era) as c:
        tools = {tool.name: tool for tool in (await c.list_tools()).tools}
        schema = tools["json_schema_2020_12_tool"].input_schema
        assert {"$schema", "$defs", "allOf", "if", "then", "else", "additionalProperties"} <= schema.keys()
        assert tools["test_x_mcp_header"].input_schema["properties"]["region"]["x-mcp-header"] == "Region"
        assert text_of(await c.call_tool("test_x_mcp_header", {"region": "eu"})) == "region=eu"


@pytest.mark.parametrize("server", ["handshake-http", "stateless-stdio"], indirect=True)
async def test_a_client_over_stdio_has_all_of_it_too(yard: Yard, server: str, era: str) -> None:
    person, seen = Person(response="red", name="Ada"), []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(done)

    answers = {"elicitation_callback": person.elicit, "sampling_callback": person.sample}
    async with over_stdio(yard, era, **answers) as c:
        assert "echo_request" in names_of((await c.list_tools()).tools)
        assert "red" in text_of(await c.call_tool("test_elicitation", {"message": "Colour?"}))
        assert "I say hi" in text_of(await c.call_tool("test_sampling", {"prompt": "hi"}))
        await c.call_tool("test_tool_with_progress", progress_callback=progress)
        with pytest.raises(MCPError) as unknown:
            await c.read_resource("test://nothing")
    assert seen == [0, 50, 100]
    assert unknown.value.error.code == (-32002 if era == "legacy" else -32602)


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_server_that_asks_for_roots_at_once_is_served_all_the_same(
    houses: Any, transport: str, era: str
) -> None:
    yard = houses.before(f"handshake-{transport}", "--ask-roots")
    async with client(yard, era, Person(response="x")) as c:
        assert "action=accept" in text_of(await c.call_tool("test_elicitation", {"message": "Well?"}))
