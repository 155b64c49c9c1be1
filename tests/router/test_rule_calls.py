"""How often a tool is called: the ways that a request leaves open, before any of them is weighed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.plan import Definition
from router.planner.rules.calls import FEATURES, options
from router.planner.rules.choose import SEVERAL, told_apart
from router.planner.rules.fill import Filled, Given, arguments_of
from router.planner.rules.linear import FAR, Linear
from router.planner.rules.params import params_of
from router.planner.rules.reading import read
from router.planner.rules.trees import Trees

NOTHING = Trees(0.0, ())


def tool(name: str, description: str = "", **properties: Any) -> Definition:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return Definition.of({"name": name, "description": description, "inputSchema": schema})


def ways(request: str, called: Definition, others: tuple[Filled, ...] = (), **said: str) -> list[list[Any]]:
    """The arguments of every way to call a tool several times, where one call takes what ``said`` names."""
    return [[arguments_of(call) for call in way.calls] for way in found(request, called, others, **said)]


def one_call(request: str, called: Definition, **said: str) -> Filled:
    reading = read(request)
    given = []
    for param in params_of(called):
        if param.name in said:
            spans = [span for span in reading.spans if span.text == said[param.name]]
            given.append(Given(param, spans[0].value, spans[0], 0.9))
    return Filled(called, tuple(given), (), frozenset(range(len(reading.clauses))))


def found(request: str, called: Definition, others: tuple[Filled, ...] = (), **said: str) -> list[Any]:
    return list(options(called, one_call(request, called, **said), read(request), NOTHING, others))


TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


@pytest.mark.parametrize(
    ("request_", "called", "said", "wanted"),
    [
        (
            "Stats of the matches with IDs 4567 and 8910",
            tool("match", match=NUMBER),
            {"match": "4567"},
            [{"match": 4567}, {"match": 8910}],
        ),
        (
            "Home standings for season 2025 in tournament 400, season 2024 in tournament 350,"
            " and season 2026 in tournament 375",
            tool("standings", season=NUMBER, tournament=NUMBER),
            {"season": "2025", "tournament": "400"},
            [
                {"season": 2025, "tournament": 400},
                {"season": 2024, "tournament": 350},
                {"season": 2026, "tournament": 375},
            ],
        ),
        (
            "Metadata of 1. http://a.org/1.jpg 2. http://a.org/2.png 3. http://a.org/3.gif",
            tool("metadata", url=TEXT),
            {"url": "http://a.org/1.jpg"},
            [{"url": "http://a.org/1.jpg"}, {"url": "http://a.org/2.png"}, {"url": "http://a.org/3.gif"}],
        ),
        (
            "The time in Tokyo, Japan, and London, UK",
            tool("time", place=TEXT),
            {"place": "Tokyo"},
            [{"place": "Tokyo, Japan"}, {"place": "London, UK"}],
        ),
        (
            "The weather in Boston, MA and Chicago",
            tool("weather", place=TEXT),
            {"place": "Boston"},
            [{"place": "Boston, MA"}, {"place": "Chicago"}],
        ),
    ],
)
def test_a_tool_may_be_called_for_each_item_of_a_row_or_a_series(
    request_: str, called: Definition, said: dict[str, str], wanted: list[Any]
) -> None:
    assert wanted in ways(request_, called, **said)


def test_a_tool_may_be_called_for_each_option_that_a_request_names() -> None:
    size = {"type": "string", "enum": ["small", "medium", "large"]}
    request = "Show me small and also some large-sized axolotls"
    reading = read(request)
    called = tool("images", size=size)
    (param,) = params_of(called)
    span = next(span for span in reading.spans if span.text.startswith("small"))
    base = Filled(called, (Given(param, "small", span, 0.9),), (), frozenset((0,)))
    made = [[arguments_of(call) for call in way.calls] for way in options(called, base, reading, NOTHING)]
    assert [{"size": "small"}, {"size": "large"}] in made


@pytest.mark.parametrize(
    ("request_", "said", "plain"),
    [
        ("Stats of the matches with IDs 4567 and 8910", "4567", True),
        ("Stats of the matches with IDs 4567 and 8910", "8910", True),
        ("Stats of the matches between 4567 and 8910", "4567", False),
    ],
)
def test_a_row_that_nothing_else_takes_is_a_call_for_each_of_it(
    request_: str, said: str, plain: bool
) -> None:
    made = found(request_, tool("match", match=NUMBER), match=said)
    assert [way.plain for way in made] == [plain]


def test_a_row_that_another_parameter_or_another_call_could_take_is_left_to_what_was_learned() -> None:
    request = "The area of 12 and 30"
    (way,) = found(request, tool("area", width=NUMBER, height=NUMBER), width="12")
    assert not way.plain
    beside = one_call(request, tool("cube", number=NUMBER), number="30")
    (way,) = found(request, tool("square", number=NUMBER), (beside,), number="12")
    assert not way.plain


def test_values_that_another_call_takes_speak_against_a_call_for_each() -> None:
    request = "Compare 12 and 30"
    called, other = tool("square", number=NUMBER), tool("cube", number=NUMBER)
    at = FEATURES.index("free")
    (alone,) = found(request, called, number="12")
    (beside,) = found(request, called, (one_call(request, other, number="30"),), number="12")
    assert alone.features[at] == 1
    assert beside.features[at] < 1


def test_how_many_a_request_says_there_are_speaks_for_as_many_calls() -> None:
    at = FEATURES.index("counted")
    called = tool("metadata", url=TEXT)
    said = {"url": "http://a.org/1"}
    for word, counted in (("two", 1.0), ("four", 0.0)):
        (way,) = found(f"I have {word} images: http://a.org/1 and http://a.org/2", called, **said)
        assert way.features[at] == counted


def test_tools_are_compared_without_what_several_descriptions_begin_with() -> None:
    begin = "This tool belongs to the Message API of a workspace. It"
    ends = ["sends a message", "lists the users", "deletes a message"]
    tools = [tool(f"tool_{n}", f"{begin} {end}") for n, end in enumerate(ends)]
    assert [t.description for t in told_apart([*tools, tool("other", "Something else")])] == [
        *ends,
        "Something else",
    ]
    assert list(told_apart(tools[: SEVERAL - 1])) == tools[: SEVERAL - 1]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2))
def test_a_line_adds_up_what_each_number_says_and_no_number_says_all(row: list[float]) -> None:
    line = Linear.of({"base": 0.5, "terms": [[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]]})
    assert line.margin((3.0, 0.5)) == pytest.approx(0.5 + 3.0 - 0.5)
    assert abs(line.margin(row)) <= 0.5 + 4 * FAR
    assert 0 < line.probability(row) < 1
