"""The official SDK's client, in both eras and over both faces, with servers behind every transport."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import anyio
import mcp_types as t
import pytest
from everything_peer import PIXEL, TOOLS
from mcp import MCPError
from yard import WAIT, Yard, names_of, over_http, text_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:.*(deprecated|removed) as of 2026-07-28"),
]
Connect = Callable[..., Any]


async def test_the_client_connects_and_learns_who_we_are(house: Yard, connect: Connect, era: str) -> None:
    async with connect(house, "auto" if era != "legacy" else era) as client:
        assert client.protocol_version == ("2025-11-25" if era == "legacy" else era)
        assert client.server_info.name == "toolyard"
        assert client.server_capabilities.tools.list_changed
        assert "Use stdio for everything." in client.instructions


async def test_every_list_holds_what_every_server_has(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    async with connect(house, era) as client:
        tools = (await client.list_tools()).tools
        assert {f"{upstream}__{name}" for name in TOOLS} <= set(names_of(tools))
        add = next(tool for tool in tools if tool.name == f"{upstream}__add")
        assert add.output_schema["properties"] == {"sum": {"type": "number"}}
        assert f"{upstream}__visit" in names_of((await client.list_prompts()).prompts)
        assert f"{upstream}://diary" in [str(r.uri) for r in (await client.list_resources()).resources]
        templates = (await client.list_resource_templates()).resource_templates
        assert f"{upstream}://letters/{{city}}" in [template.uri_template for template in templates]


async def test_a_call_brings_text_structure_and_pictures(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    async with connect(house, era) as client:
        assert text_of(await client.call_tool(f"{upstream}__echo", {"text": "Grüße 🌍\n"})) == "Grüße 🌍\n"
        added = await client.call_tool(f"{upstream}__add", {"a": 2, "b": 0.5})
        assert added.structured_content == {"sum": 2.5}
        picture, link, _ = (await client.call_tool(f"{upstream}__picture")).content
        assert (picture.data, picture.mime_type) == (PIXEL, "image/png")
        assert str(link.uri) == f"{upstream}://diary"


async def test_a_tools_own_error_and_an_unknown_tool_are_told_apart(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    async with connect(house, era) as client:
        failed = await client.call_tool(f"{upstream}__fail")
        assert failed.is_error
        assert text_of(failed) == "no luck"
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool(f"{upstream}__nothing")


async def test_resources_are_read_by_uri_and_by_template(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    async with connect(house, era) as client:
        (diary,) = (await client.read_resource(f"{upstream}://diary")).contents
        assert diary.text.endswith("entries")
        (letter,) = (await client.read_resource(f"{upstream}://letters/Oslo")).contents
        assert base64.b64decode(letter.blob) == b"Dear Oslo"
        with pytest.raises(MCPError, match="Resource not found"):
            await client.read_resource("nobody://nothing")


async def test_prompts_are_filled_in_and_arguments_completed(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    async with connect(house, era) as client:
        prompt = await client.get_prompt(f"{upstream}__visit", {"city": "Bern"})
        assert prompt.messages[0].content.text == "Plan a visit to Bern."
        for reference in (
            t.PromptReference(type="ref/prompt", name=f"{upstream}__visit"),
            t.ResourceTemplateReference(type="ref/resource", uri=f"{upstream}://letters/{{city}}"),
        ):
            found = await client.complete(reference, {"name": "city", "value": "Ber"})
            assert found.completion.values == ["Bergen", "Berlin", "Bern"]


async def test_progress_arrives_in_order_before_the_answer(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    if upstream == "json":
        pytest.skip("an answer in plain JSON has no room for progress")
    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    async with connect(house, era) as client:
        await client.call_tool(f"{upstream}__steps", {"count": 3}, progress_callback=progress)
    assert seen == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


async def test_a_cancelled_call_is_cancelled_at_the_server(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    if upstream == "json":
        pytest.skip("nothing says that the call has begun")
    begun = anyio.Event()

    async def progress(*_: Any) -> None:
        begun.set()

    async with connect(house, era) as client:
        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    await client.call_tool(f"{upstream}__wait", progress_callback=progress)

                tasks.start_soon(wait)
                await begun.wait()
                tasks.cancel_scope.cancel()
            assert text_of(await client.call_tool(f"{upstream}__cancelled")) == "done"


async def test_log_messages_come_from_the_level_that_was_asked_for(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    if upstream == "json":
        pytest.skip("an answer in plain JSON has no room for log messages")
    seen: list[Any] = []

    async def logged(params: t.LoggingMessageNotificationParams) -> None:
        seen.append((params.level, params.logger, params.data))

    level = {"log_level": "info"} if era != "legacy" else {}
    async with connect(house, era, logging_callback=logged, **level) as client:
        if era == "legacy":
            await client.set_logging_level("info")
        await client.call_tool(f"{upstream}__talk")
    assert seen == [("warning", upstream, {"what": "a warning"})]


async def test_changed_lists_are_announced_and_served(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    name = "grown_" + hashlib.sha256(f"{connect} {era}".encode()).hexdigest()[:8]
    if era == "legacy":
        heard: set[str] = set()
        change = anyio.Event()

        async def handler(message: Any) -> None:
            nonlocal change
            heard.add(message.method)
            change.set()

        async with connect(house, era, message_handler=handler) as client:
            await client.list_tools()
            for verb in ("grow", "shrink"):
                heard.clear()
                await client.call_tool(f"{upstream}__{verb}", {"text": name})
                with anyio.fail_after(WAIT):
                    while len(heard) < 3:
                        change = anyio.Event()
                        if len(heard) < 3:
                            await change.wait()
                assert heard == {
                    "notifications/tools/list_changed",
                    "notifications/prompts/list_changed",
                    "notifications/resources/list_changed",
                }
                await shown(client, upstream, name, verb == "grow")
        return
    async with (
        connect(house, era) as client,
        client.listen(
            tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True
        ) as subscription,
    ):
        for verb in ("grow", "shrink"):
            await client.call_tool(f"{upstream}__{verb}", {"text": name})
            kinds: set[str] = set()
            with anyio.fail_after(WAIT):
                async for event in subscription:
                    kinds.add(type(event).__name__)
                    if len(kinds) == 3:
                        break
            assert kinds == {"ToolsListChanged", "PromptsListChanged", "ResourcesListChanged"}
            await shown(client, upstream, name, verb == "grow")


async def shown(client: Any, upstream: str, name: str, there: bool) -> None:
    """Whether what was grown is in every list."""
    tools = names_of((await client.list_tools(cache_mode="refresh")).tools)
    assert (f"{upstream}__{name}" in tools) is there
    prompts = names_of((await client.list_prompts(cache_mode="refresh")).prompts)
    assert (f"{upstream}__{name}" in prompts) is there
    resources = [str(r.uri) for r in (await client.list_resources(cache_mode="refresh")).resources]
    assert (f"{upstream}://{name}" in resources) is there


async def test_updates_of_a_resource_reach_those_who_subscribed(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    diary = f"{upstream}://diary"
    if era != "legacy":
        async with connect(house, era) as client, client.listen(resource_subscriptions=[diary]) as updates:
            await client.call_tool(f"{upstream}__touch")
            with anyio.fail_after(WAIT):
                event = await anext(aiter(updates))
            assert event.uri == diary
        return
    updated = anyio.Event()

    async def handler(message: Any) -> None:
        if message.method == "notifications/resources/updated" and str(message.params.uri) == diary:
            updated.set()

    async with connect(house, era, message_handler=handler) as client:
        await client.subscribe_resource(diary)
        await client.call_tool(f"{upstream}__touch")
        with anyio.fail_after(WAIT):
            await updated.wait()
        await client.unsubscribe_resource(diary)


async def test_an_answer_of_a_mebibyte_arrives_whole(
    house: Yard, connect: Connect, era: str, upstream: str
) -> None:
    async with connect(house, era) as client:
        result = await client.call_tool(f"{upstream}__big", {"count": 1 << 20})
    assert text_of(result) == "x" * (1 << 20)


async def test_many_calls_at_a_time_get_their_own_answers(house: Yard, era: str, upstream: str) -> None:
    answers: dict[int, str] = {}
    async with over_http(house, era) as client:

        async def call(number: int) -> None:
            answers[number] = text_of(
                await client.call_tool(f"{upstream}__echo", {"text": f"number {number}"})
            )

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(call, number)
    assert answers == {number: f"number {number}" for number in range(50)}
