"""Long calls become tasks (SEP-2663), although the server behind the gateway knows none."""

from __future__ import annotations

import json
import re
import tempfile
import threading
from contextlib import closing
from typing import Any

import pytest
from task_parts import EXTENSION, META, Client, Refused, accept, text
from yard import WAIT, until


def test_a_call_that_is_answered_soon_is_no_task(client: Client) -> None:
    def answered() -> Any:
        result = client.call("slow_compute", seconds=0, label="soon")
        return result if result["resultType"] == "complete" else None  # on a slow machine it is none too soon

    assert text(until("an answer", answered)) == "computed soon"


def test_a_long_call_becomes_a_task_whose_result_is_the_calls(client: Client) -> None:
    created = client.created("slow_compute", label="late")
    assert created["status"] == "working"
    assert created["ttlMs"] == 3_600_000
    assert isinstance(created["pollIntervalMs"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", created["createdAt"])
    assert not {"result", "error", "inputRequests", "requestState"} & created.keys()
    done = client.when(created["taskId"], "completed")
    assert done["resultType"] == "complete"
    assert done["taskId"] == created["taskId"]
    assert text(done["result"]) == "computed late"
    assert client.get(created["taskId"]) == done


def test_a_tools_error_completes_a_task_and_a_requests_error_fails_it(client: Client) -> None:
    tool, request = client.start("failing_job"), client.start("protocol_error_job")
    assert client.result(tool)["isError"] is True
    failed = client.when(request, "failed", "completed")
    assert failed["error"]["code"] == -32603
    assert "breaks the protocol" in failed["error"]["message"]
    assert "breaks the protocol" in failed["statusMessage"]
    assert "result" not in failed


def test_input_that_the_server_asks_for_comes_from_the_client(any_client: Client) -> None:
    task = any_client.start("confirm_delete", filename="a.txt")
    waiting = any_client.when(task, "input_required")
    [(key, asked)] = waiting["inputRequests"].items()
    assert asked["method"] == "elicitation/create"
    assert asked["params"]["message"] == "Delete a.txt?"
    assert any_client.update(task, **{"no-such-key": accept()}) == {"resultType": "complete"}
    assert any_client.get(task)["inputRequests"] == waiting["inputRequests"]
    assert any_client.update(task, **{key: accept(confirm=True)}) == {"resultType": "complete"}
    assert text(any_client.result(task)) == "deleted a.txt"
    assert any_client.update(task, **{key: accept(confirm=False)}) == {"resultType": "complete"}
    assert text(any_client.result(task)) == "deleted a.txt"


def test_questions_may_be_answered_one_by_one(client: Client) -> None:
    task = client.start("multi_input")
    first, second = client.when(task, "input_required")["inputRequests"]
    client.update(task, **{first: accept(name="Ada")})
    waiting = client.get(task)
    assert waiting["status"] == "input_required"
    assert list(waiting["inputRequests"]) == [second]
    client.update(task, **{second: accept(name="Bob")})
    assert text(client.result(task)) == "Ada and Bob"


def test_questions_before_a_call_takes_long_are_asked_in_the_calls_own_result(client: Client) -> None:
    def asked() -> Any:
        first = client.call("test_tool_with_task", held=held.name)
        return first if first["resultType"] == "input_required" else None  # on a slow machine it took long

    with tempfile.NamedTemporaryFile() as held:
        first = until("a question", asked)
        assert "taskId" not in first
        [key] = first["inputRequests"]
        again = client.request(
            "tools/call",
            name="test_tool_with_task",
            arguments={"held": held.name},
            inputResponses={key: accept(name="Alice")},
            requestState=first["requestState"],
        )
        assert again["resultType"] == "task"
    assert "requestState" not in again
    assert text(client.result(again["taskId"])) == "Hello, Alice!"


def test_cancelling_a_task_cancels_the_servers_call(any_client: Client) -> None:
    label = f"task {id(any_client)}"
    task = any_client.start("wait", label=label)
    assert any_client.cancel(task) == {"resultType": "complete"}
    assert any_client.get(task)["status"] == "cancelled"

    def told() -> bool | None:
        return True if label in any_client.call("cancelled")["structuredContent"]["labels"] else None

    until("the server to be told", told)
    assert any_client.cancel(task) == {"resultType": "complete"}


def test_cancelling_a_task_that_waits_for_input_ends_it(client: Client) -> None:
    task = client.start("confirm_delete", filename="b.txt")
    [key] = client.when(task, "input_required")["inputRequests"]
    client.cancel(task)
    cancelled = client.get(task)
    assert cancelled["status"] == "cancelled"
    assert "inputRequests" not in cancelled
    client.update(task, **{key: accept(confirm=True)})
    assert client.get(task)["status"] == "cancelled"


def test_progress_reaches_the_client_as_long_as_it_waits_for_the_answer(client: Client) -> None:
    connection, response = client.open(
        "tools/call", name="wait", arguments={"label": "x"}, _meta={"progressToken": "p"}
    )
    with closing(connection):
        events = re.findall(r"data: (.*)", response.read().decode())
    progress, created = (json.loads(event) for event in events)
    assert progress["method"] == "notifications/progress"
    assert progress["params"]["progressToken"] == "p"
    assert created["result"]["resultType"] == "task"
    client.cancel(created["result"]["taskId"])


def test_a_client_without_the_extension_gets_no_task(client: Client) -> None:
    plain = client.without_tasks()
    assert text(plain.call("slow_compute", seconds=0.8, label="plain")) == "computed plain"
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        with pytest.raises(Refused) as refused:
            plain.request(method, taskId="x", inputResponses={})
        assert (refused.value.code, refused.value.status) == (-32021, 400)
        assert refused.value.error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


def test_a_tool_that_says_it_needs_tasks_is_refused_to_a_client_without(one_client: Client) -> None:
    with pytest.raises(Refused) as refused:
        one_client.without_tasks().call("failing_job")
    assert (refused.value.code, refused.value.status) == (-32021, 400)


def test_the_extension_is_offered_where_it_exists(one_client: Client) -> None:
    capabilities = one_client.request("server/discover")["capabilities"]
    assert capabilities["extensions"] == {EXTENSION: {}}
    assert "tasks" not in capabilities
    for method in ("tasks/list", "tasks/result"):
        with pytest.raises(Refused) as refused:
            one_client.request(method)
        assert refused.value.code == -32601


@pytest.mark.parametrize(
    "forge", [lambda t: t[:-4] + "AAAA", lambda t: "", lambda t: "x" * 5000, lambda t: t[1:]]
)
def test_a_task_id_that_was_changed_is_unknown(one_client: Client, forge: Any) -> None:
    task = forge(one_client.start("slow_compute"))
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        with pytest.raises(Refused) as refused:
            one_client.request(method, taskId=task, inputResponses={})
        assert refused.value.code == -32602


def test_answers_that_are_no_object_are_refused(one_client: Client) -> None:
    task = one_client.start("confirm_delete", filename="c.txt")
    for answers in (None, 1, "x", []):
        with pytest.raises(Refused) as refused:
            one_client.request("tasks/update", taskId=task, inputResponses=answers)
        assert refused.value.code == -32602
    one_client.cancel(task)


def test_who_listens_to_a_task_is_told_of_every_change(client: Client) -> None:
    task = client.start("confirm_delete", filename="d.txt")
    connection, response = client.open("subscriptions/listen", notifications={"taskIds": [task, "x"]})
    told: list[dict[str, Any]] = []

    def listen() -> None:
        for line in response:
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:]))
                if told[-1]["params"].get("status") == "completed":
                    return

    with closing(connection):
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        [key] = client.when(task, "input_required")["inputRequests"]
        client.update(task, **{key: accept(confirm=True)})
        listener.join(WAIT)
    acknowledged, *changes = told
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {"taskIds": [task]}
    assert {change["method"] for change in changes} == {"notifications/tasks"}
    assert {change["params"]["taskId"] for change in changes} == {task}
    assert all(change["params"]["_meta"] == {META + "subscriptionId": 1} for change in changes)
    statuses = [change["params"]["status"] for change in changes]
    assert statuses[-1] == "completed"
    assert "input_required" in statuses
    assert text(changes[-1]["params"]["result"]) == "deleted d.txt"


def test_listening_to_tasks_needs_the_extension(one_client: Client) -> None:
    with pytest.raises(Refused) as refused:
        one_client.without_tasks().request("subscriptions/listen", notifications={"taskIds": ["x"]})
    assert (refused.value.code, refused.value.status) == (-32021, 400)
