"""What is read out of docstrings of every make."""

from __future__ import annotations

from servers.convert.docstrings import read


def test_links_roles_footnotes_and_code_are_not_prose() -> None:
    text = (
        "Validate. Inspired by [Django][1] and :py:meth:`~a.b.find`, see :ref:`the guide <x.y>`.\n\n"
        "```python\nvalidate(1)\n```\n\n[1]: https://example.com\n"
    )
    assert read(text).summary == "Validate. Inspired by Django and `find`, see `the guide`."


def test_parameters_with_dashes_are_parameters() -> None:
    text = (
        "Show a table.\n\nArguments:\n\ntitle - optional title\n"
        "start - index of the first\n        row to show\n\nMore of it."
    )
    found = read(text)
    assert found.summary == "Show a table."
    assert found.parameters == {
        "title": (None, "optional title"),
        "start": (None, "index of the first row to show"),
    }


def test_each_known_style_is_read() -> None:
    for text in (
        "Add.\n\nArgs:\n    a (int): the first\n",
        "Add.\n\n:param int a: the first\n",
        "Add.\n\nParameters\n----------\na : int\n    the first\n",
    ):
        assert read(text).parameters["a"] == ({"k": "int"}, "the first"), text
