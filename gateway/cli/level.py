"""Which level search works at here: by meaning, or by words alone, and what it would take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.paths import StateDir


def search_level(state_dir: Path | None, *, verify: bool = False) -> dict[str, Any]:
    """``mode`` (``hybrid`` or ``lexical``), what it ``says`` to a person, and how to ``mend`` it.

    :param verify: check the model's weights too, which takes a moment.
    """
    from registry.embed import prepare
    from registry.embed.weights import locate
    from registry.errors import SearchError

    lacking = prepare.missing(export=False)
    if lacking:
        return {
            "mode": "lexical",
            "says": f"by words alone: {', '.join(lacking)} not installed.",
            "mend": "pip install 'toolyard[search]'",
        }
    if verify:
        try:
            locate()
        except SearchError as error:
            return {"mode": "lexical", "says": f"by words alone. {error.message}", "mend": error.hint or ""}
    if not any(StateDir.at(state_dir).search.glob("model-*/model.json")):
        return {"mode": "lexical", "says": "by words, until the model is prepared on first use.", "mend": ""}
    return {"mode": "hybrid", "says": "by words and by meaning.", "mend": ""}
