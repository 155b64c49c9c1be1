"""What is read from a request: spans that are no plain words, sentences, and which parameter each speaks of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.plan import Definition
from router.planner.rules.evidence import FEATURES, owner_of
from router.planner.rules.reading import read
from router.planner.rules.values import candidates


def tool(**parts: dict[str, Any]) -> Definition:
    return Definition("tool", "", {"type": "object", "properties": parts, "required": list(parts)})


def feature(name: str, request: str, param: str, text: str, of: Definition) -> float:
    """A number of what speaks for a text of a request as a parameter's value."""
    owner = owner_of(of, frozenset({0}))
    (wanted,) = (p for p in owner.params if p.name == param)
    found = candidates(wanted, owner, read(request))
    return next(value.features[FEATURES.index(name)] for value in found if value.value == text)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("Which colour is #ff4500?", "#ff4500"),
        ("validate 01:23:45:67:ab:CD", "01:23:45:67:ab:CD"),
        ("is 192.168.1.300 an address", "192.168.1.300"),
        ("bump 1.4.2", "1.4.2"),
        ("explain */15 * * * *", "*/15 * * * *"),
        ("what is (5+10)*3?", "(5+10)*3"),
        ("parse <a><b>1</b></a> now", "<a><b>1</b></a>"),
        ("what does :thumbsup: show", ":thumbsup:"),
        ("rename user_profile_id", "user_profile_id"),
        ("review 'I love it! It's fresh.' please", "I love it! It's fresh."),
        ("a ride from 456 Elm St, Springville, IL at noon", "456 Elm St, Springville, IL"),
        ("meet tomorrow at 2pm.", "tomorrow at 2pm"),
        ("is ann@example.com a valid one", "ann@example.com"),
        ("Translate this.\nThe fox is quick.", "The fox is quick."),
    ],
)
def test_what_is_no_plain_word_is_a_span_as_a_whole(request_: str, text: str) -> None:
    found = [span for span in read(request_).spans if span.text == text]
    assert found
    assert all(request_[span.start : span.end] == text for span in found)


def test_an_article_ends_a_phrase_and_may_join_two() -> None:
    texts = {
        span.text for span in read("is ann@example.com a valid one? give bob the book of the year").spans
    }
    assert {"bob", "book", "book of the year", "bob the book"} <= texts


@given(st.text(alphabet=st.sampled_from("ab A1.!?;\n\"'#<>/*_:@,-"), max_size=60))
def test_sentences_cover_a_request_and_every_span_is_a_part_of_it(text: str) -> None:
    reading = read(text)
    assert "".join(text[s.start : s.end] for s in reading.sentences) == reading.text
    assert all(reading.text[span.start : span.end] == span.text for span in reading.spans)
    for span in reading.spans:
        sentence = reading.sentences[reading.place(span).sentence]
        assert sentence.start <= span.start < sentence.end


def test_a_correction_is_heard_in_its_sentence_and_after_one_that_says_nothing_else() -> None:
    reading = read("From Rome. It was wrong before. The city is Oslo. I pay in cash.")
    assert [sentence.corrects for sentence in reading.sentences] == [False, True, True, False]


def test_a_sentence_speaks_most_of_the_parameter_whose_own_words_it_has() -> None:
    trip = tool(
        departure_station={"type": "string"},
        arrival_station={"type": "string"},
        rider_name={"type": "string"},
    )
    request = "My arrival station is Nanjing. The departure station is Beijing."
    assert feature("sentence_margin", request, "arrival_station", "Nanjing", trip) > 0
    assert feature("sentence_margin", request, "arrival_station", "Beijing", trip) < 0
    assert feature("sentence_margin", request, "departure_station", "Beijing", trip) > 0
    assert feature("asserted", request, "departure_station", "Beijing", trip) == 1
    assert feature("sentence_own", request, "rider_name", "Beijing", trip) == 0


names = st.sampled_from(["city", "from_city", "to_city", "user name", "date", "the", "42"])


@given(
    st.lists(names, min_size=1, max_size=4, unique=True),
    st.text(alphabet=st.sampled_from("city from to user name. "), max_size=40),
)
def test_how_much_a_sentence_names_a_parameter_is_a_share(listed: list[str], text: str) -> None:
    owner = owner_of(tool(**{name: {"type": "string", "description": text} for name in listed}), frozenset())
    for index, sentence in enumerate(read(text).sentences):
        heard = owner.named(index, sentence)
        assert len(heard) == len(owner.params)
        best = max(share for share, _ in heard)
        assert all(0 <= share <= 1 + 1e-9 and margin <= share for share, margin in heard)
        assert all((margin >= 0) == (share == best) for share, margin in heard)


@pytest.mark.parametrize("schema", [{"type": "string", "enum": ["any", "jazz"]}, {"type": "boolean"}])
def test_an_option_that_no_word_speaks_for_is_no_better_than_the_default_or_none(
    schema: dict[str, Any],
) -> None:
    def offered(part: dict[str, Any], needed: bool) -> list[Any]:
        made = Definition(
            "t", "", {"type": "object", "properties": {"genre": part}, "required": ["genre"] * needed}
        )
        owner = owner_of(made, frozenset({0}))
        return [value.value for value in candidates(owner.params[0], owner, read("play something"))]

    default = "any" if "enum" in schema else False
    assert offered({**schema, "default": default}, needed=True) == [default]
    assert offered(schema, needed=False) == []
    assert len(offered(schema, needed=True)) == 2


def test_what_the_tool_does_not_say_itself_is_what_is_new_in_a_request() -> None:
    compare = Definition(
        "edit_distance",
        "The distance between two strings",
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
    )
    request = "edit distance between kitten and sitting"
    assert feature("news", request, "a", "kitten", compare) == 0.5
    assert feature("news", request, "a", "edit distance", compare) == 0
    assert feature("repeats_tool", request, "a", "edit distance", compare) == 1


def test_nothing_inside_a_quote_is_a_row() -> None:
    assert read("a slug for 'Fish & Chips'").rows == ()
    assert [[s.text for s in row] for row in read("for 'Fish' and 'Chips'").rows] == [["Fish", "Chips"]]
