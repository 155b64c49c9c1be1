"""What real packages do wrong, one small package that does it all: converted, hosted, called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trap_packages import Client

from servers.convert import document
from servers.manifest import files
from servers.manifest.records import Manifest


def tool(manifest: Manifest, qualname: str):  # type: ignore[no-untyped-def]
    found = [each for each in manifest.tools if qualname in (each.qualname, *each.aliases)]
    assert len(found) == 1, [each.qualname for each in manifest.tools]
    return found[0]


def test_the_written_manifest_follows_the_published_schema(converted: Path) -> None:
    assert files.check(json.loads((converted / "manifest.json").read_text())) == []


def test_a_re_export_is_one_tool_with_every_path_to_it(manifest: Manifest) -> None:
    assert tool(manifest, "traps:exported") == tool(manifest, "traps.inner:exported")
    assert tool(manifest, "traps._private:hidden_home").qualname == "traps:hidden_home"


def test_what_is_not_the_packages_own_is_no_tool(manifest: Manifest) -> None:
    assert not [each for each in manifest.tools if each.qualname.startswith("traps:input")]
    assert not [
        each for each in manifest.tools if "dataclass" in each.qualname or "ArgumentParser" in each.qualname
    ]


def test_a_module_that_exits_and_one_that_kills_its_process_do_not_stop_the_others(
    manifest: Manifest,
) -> None:
    assert tool(manifest, "traps.programs:free").kind == "function"


def test_at_most_forty_are_shown_and_the_rest_is_kept(
    converted: Path, manifest: Manifest, service: Client
) -> None:
    listed = service.request("tools/list")["result"]["tools"]
    assert len(listed) <= 40
    assert len(manifest.tools) > len(manifest.exposed())


def test_descriptions_come_from_docstrings_for_each_parameter(manifest: Manifest) -> None:
    add = tool(manifest, "traps:add")
    assert add.description == "Add two numbers."
    assert add.input_schema["properties"]["b"]["description"] == "the second one."
    assert add.input_schema["required"] == ["a"]


def test_an_example_of_the_docstring_was_really_called(manifest: Manifest) -> None:
    review = tool(manifest, "traps:add").review
    assert review.outcome == "answer"
    assert (review.source, review.arguments, review.result) == ("doctest", {"a": 2, "b": 3}, "5")


def test_an_answer_that_depends_on_the_day_is_known_as_such(manifest: Manifest) -> None:
    assert not tool(manifest, "traps:today").review.deterministic
    assert tool(manifest, "traps:add").review.deterministic


def test_a_crash_and_a_hang_are_kept_but_not_shown(manifest: Manifest) -> None:
    for name in ("traps:crash", "traps:hang"):
        found = tool(manifest, name)
        assert not found.exposed
        assert found.review is None or found.review.outcome in ("crash", "hang")


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("add", {"a": 1}, 3),
        ("exported", {"text": "abc"}, "cba"),
        ("paint", {"color": "RED"}, "RED"),
        ("paint", {"color": "g"}, "GREEN"),
        ("restyle", {"style": "BOLD|THIN"}, 3),
        ("move", {"point": {"x": 1}, "by": [1, 2]}, {"x": 2, "y": 2.0}),
        ("shout", {"data": "aGk="}, "HI"),
        ("when", {"day": "2024-02-29"}, "Thursday"),
        ("later", {"start": "2024-01-01T00:00:00", "by": "PT1H"}, "2024-01-01T01:00:00"),
        ("raw", {"data": "abc"}, "abc!"),
        ("unsure", {"value": "2024-02-29"}, 4),
        ("total", {"values": [1, 2], "scale": 2}, 6),
        ("options", {"name": "n", "depth": 3}, {"name": "n", "depth": 3}),
        ("numbers", {"n": 3}, [0, 1, 2]),
        ("letters", {}, ["a", "b", "c"]),
        ("wait_for", {"n": 4}, 4),
        ("agenerate", {"n": 2}, [0, 1]),
        ("says", {"text": "hello"}, "hello\n"),
        ("table", {}, {"left": 1, "right": [1, 2, 3]}),
        ("money", {}, "1.10"),
        ("kinds", {}, {"d": "2024-01-02", "t": 3600.0, "n": "inf", "5": "//4="}),
        ("account_deposit", {"init": {"owner": "a", "balance": 1}, "amount": 2}, 3),
        ("account_parse", {"text": "x:1"}, "x"),
        ("account_currency", {}, "EUR"),
        ("counter_words", {"text": "a b c"}, 3),
        ("apply", {"function": "traps:exported", "value": "ab"}, "ba"),
        ("apply", {"function": "builtins:len", "value": "ab"}, 2),
        ("nameless", {"a": 1, "b": 2}, 3),
        ("made_late", {"n": 1}, 101),
        ("join", {"parts": "abc"}, "a-b-c"),
        ("join", {"parts": ["a", "b"]}, "a-b"),
        ("by_number", {"names": {"1": "one"}}, "one"),
        ("size_of", {"data": "abc"}, 3),
        ("find_all", {"pattern": "[ab]", "text": "abc"}, ["a", "b"]),
        ("box_label", {"init": {"content": 1}}, "box of 1"),
        ("point", {"x": 1}, {"x": 1, "y": 0.0}),
        ("read_text", {"path": "a.txt", "files": {"a.txt": "inside"}}, "inside"),
    ],
)
def test_a_tool_answers(service: Client, name: str, arguments: dict[str, object], expected: object) -> None:
    assert service.value(name, **arguments) == expected


def test_a_file_that_was_written_comes_back_as_a_resource(service: Client) -> None:
    result = service.call("write_text", filename="out.txt", text="new")
    assert result["structuredContent"]["files"] == {"out.txt": "new"}
    assert any(item.get("resource", {}).get("text") == "new" for item in result["content"])


def test_a_picture_comes_back_as_an_image(service: Client) -> None:
    content = service.call("picture")["content"]
    assert [item["mimeType"] for item in content if item["type"] == "image"] == ["image/png"]


def test_an_object_flows_into_another_call_by_its_handle(service: Client) -> None:
    handle = service.call("make_box", content=[1, 2])["_meta"]["toolyard/handle"]
    assert service.value("open_box", box=handle) == [1, 2]
    assert service.value("box_peek", init=handle) == [1, 2]


def test_an_argument_can_be_the_result_of_another_tool(service: Client) -> None:
    inner = {"$call": {"tool": "make_box", "arguments": {"content": "deep"}}}
    assert service.value("open_box", box=inner) == "deep"
    by_path = {"$call": {"callable": "traps:make_box", "arguments": {"content": "deep"}}}
    assert service.value("open_box", box=by_path) == "deep"


def test_a_class_is_made_as_the_class_it_extends_documents(manifest: Manifest, service: Client) -> None:
    made_of = {each.name: each.required for each in tool(manifest, "traps:Moment.said").constructor}
    assert made_of["year"]
    assert not made_of["hour"]
    assert service.value("moment_said", init={"year": 2024, "month": 2, "day": 29}) == "2024-02-29T00:00:00"


def test_an_object_that_answers_to_every_name_is_an_object_like_others(service: Client) -> None:
    made = service.call("anything", key="x")
    assert not made["isError"], made["content"]
    assert made["_meta"]["toolyard/handle"].startswith("handle:Anything:")


def test_a_text_that_wants_its_own_notation_is_tried_in_several(manifest: Manifest) -> None:
    review = tool(manifest, "traps:day_of_week").review
    assert review is not None
    assert (review.outcome, review.result) == ("answer", "2")


def test_what_wants_the_answer_of_its_neighbour_is_tried_with_it(manifest: Manifest) -> None:
    review = tool(manifest, "traps:unseal_message").review
    assert review is not None
    assert (review.outcome, review.source, review.result) == ("answer", "neighbour", '"hello world"')


def test_an_unknown_handle_is_refused_and_says_what_to_do(service: Client) -> None:
    assert "make the object again" in service.problem("open_box", box="handle:Box:0-1:" + "0" * 32)


def test_an_exception_is_told_with_its_place(service: Client) -> None:
    assert "RuntimeError: as designed (at __init__.py:" in service.problem("boom")


def test_ending_the_process_is_an_error_and_the_next_call_is_served(service: Client) -> None:
    assert "exit 3" in service.problem("leave", code=3)
    assert service.value("add", a=1) == 3


class TestCommands:
    def test_an_argparse_tree_is_a_tool_for_each_command(self, manifest: Manifest) -> None:
        names = {each.qualname for each in manifest.tools if each.kind == "cli"}
        assert names >= {"cli:trap", "cli:trap greet", "cli:trap save", "cli:oldtrap", "cli:freetrap"}
        assert "usage" in tool(manifest, "cli:trap greet").description

    def test_its_subcommand_may_be_given_or_left_out(self, service: Client) -> None:
        assert service.value("trap_greet", argv=["you"]) == "hello you\n"
        assert service.value("trap_greet", argv=["greet", "you"]) == "hello you\n"

    def test_what_its_parser_knows_can_be_given_by_name(self, manifest: Manifest, service: Client) -> None:
        properties = tool(manifest, "cli:trap greet").input_schema["properties"]
        assert properties["times"] == {
            "type": "integer", "default": 1, "description": "--times: how often, 1 unless told",
        }  # fmt: skip
        assert properties["style"]["enum"] == ["plain", "loud"]
        assert properties["shout"]["type"] == "boolean"
        assert "needed" in properties["who"]["description"]
        said = service.value("trap_greet", who="greet", times=2, also=["a", "-b"], shout=True)
        assert said == "HELLO GREET A -B HELLO GREET A -B\n"
        assert service.value("trap_greet", argv=["you"], style="plain") == "hello you\n"
        assert "'many'" in service.problem("trap_greet", who="x", times="many")

    def test_files_that_it_writes_come_back(self, service: Client) -> None:
        result = service.call("trap_save", argv=["out.txt"])
        assert result["structuredContent"]["files"] == {"out.txt": "saved"}

    def test_optparse_and_free_programs_run(self, service: Client) -> None:
        assert service.value("oldtrap", argv=["-n", "2", "x"]) == "x x\n"
        assert service.value("freetrap", stdin="abc") == "ABC"

    def test_a_programs_complaint_is_an_error(self, service: Client) -> None:
        text = service.problem("freetrap")
        assert "exit code 2" in text
        assert "nothing to do" in text

    def test_a_file_name_cannot_leave_the_working_directory(self, service: Client) -> None:
        assert "leads out" in service.problem("freetrap", stdin="x", files={"../../x": "y"})


def test_the_documentation_page_shows_every_shown_tool_with_its_call(manifest: Manifest) -> None:
    text = document.page(manifest)
    assert all(f"## {each.name}\n" in text for each in manifest.exposed())
    assert '{"a": 2, "b": 3}' in text


def test_a_wrapper_that_looks_at_positions_is_given_positions(service: Client) -> None:
    assert service.value("alike", first="abc", second="abd", scale=2) == 4


def test_a_module_called_version_is_looked_into_and_its_methods_are_at_home_in_it(manifest: Manifest) -> None:
    assert tool(manifest, "traps.version:Release.major").qualname == "traps.version:Release.major"


@pytest.mark.parametrize("script", ["defaulttrap", "copytrap"])
def test_a_script_whose_default_is_the_command_line_gets_its_own(service: Client, script: str) -> None:
    assert service.value(script, argv=["a", "b"]).splitlines()[-1] == "A B"


def test_what_an_object_answers_to_and_says_so_is_a_tool(manifest: Manifest, service: Client) -> None:
    found = tool(manifest, "traps:Proxy.lucky")
    assert [each.name for each in found.parameters] == ["number"]
    assert service.value(found.name, number=5, **{found.init_property: {}}) == 15


def test_a_script_that_asks_no_parser_is_described_by_its_own_help(manifest: Manifest) -> None:
    assert "usage: shytrap WORD" in tool(manifest, "cli:shytrap").description


def test_a_script_that_needs_an_argument_before_it_makes_its_parser_is_understood(manifest: Manifest) -> None:
    late = tool(manifest, "cli:latetrap")
    assert [each.name for each in late.options] == ["depth"]
    assert [each.name for each in tool(manifest, "cli:copylatetrap").options] == ["depth"]
    assert "--depth" not in late.description.partition("usage")[0]


def test_an_example_that_is_what_would_be_made_up_is_not_two_inputs(manifest: Manifest) -> None:
    assert tool(manifest, "traps:echo").review.varies is True


def test_two_texts_to_compare_are_not_the_same_text(manifest: Manifest) -> None:
    review = tool(manifest, "traps:gap").review
    assert review.arguments["one"] != review.arguments["two"]
    assert review.varies is True


def test_what_keyword_arguments_are_for_comes_from_the_docstring(manifest: Manifest, service: Client) -> None:
    properties = tool(manifest, "traps:decorate").input_schema["properties"]
    assert properties["left"]["description"] == "what comes before it."
    assert service.value("decorate", text="x", left="<", right=">", other=1) == "<x>"


def test_a_promise_that_the_answer_broke_is_not_repeated(manifest: Manifest) -> None:
    assert tool(manifest, "traps:promised").output_schema is None
    assert tool(manifest, "traps:echo").output_schema is not None
