"""Verbs of other parts of the product: their errors are sentences, too."""

from __future__ import annotations

import pytest

from gateway.cli import app
from gateway.cli.exits import Exit


def test_an_error_that_a_part_raises_on_purpose_is_a_sentence_with_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.main(["convert", "./nowhere", "--dry-run"]) == Exit.FAILED
    said = capsys.readouterr().err
    assert "There is no './nowhere'." in said
    assert "Name a folder" in said
    assert "should not have happened" not in said
