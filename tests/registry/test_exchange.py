"""Tools in and ranked runs out as JSON lines, with the ids they came with."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from registry.exchange import BadLine, import_tools, imported_ids, search_batch
from registry.search.service import SearchService
from registry.store import Store
from registry.tools import ToolRecords

TOOLS: list[dict[str, Any]] = [
    {
        "id": "x/1",
        "server": "sky",
        "name": "weather",
        "description": "Forecast",
        "input_schema": {"type": "object"},
    },
    {"id": "x/2", "server": "", "name": "book flight", "description": "Books"},
    {"id": "x/3", "server": "sky", "name": "rain", "description": "Forecast of rain"},
]


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


def test_tools_are_imported_offline_and_answer_a_batch_by_their_ids(store: Store, tmp_path: Path) -> None:
    records = ToolRecords(store)
    path = write(tmp_path / "tools.jsonl", list(TOOLS))
    assert import_tools(records, path) == 3
    generation = records.generation()
    assert import_tools(records, path) == 3
    assert records.generation() == generation
    assert imported_ids(records) == {(t["server"], t["name"]): t["id"] for t in TOOLS}
    queries = write(
        tmp_path / "q.jsonl", [{"id": "a", "query": "rain forecast"}, {"id": 2, "query": "flights"}]
    )
    service = SearchService(store, tmp_path, model=None)
    service.open()
    out = io.StringIO()
    assert search_batch(service, queries, out, limit=2) == 2
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first == {"query_id": "a", "ranked": ["x/3", "x/1"]}
    assert second == {"query_id": 2, "ranked": ["x/2"]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["nope"], "1 is not JSON"),
        ([[1]], "no JSON object"),
        ([{"id": 1, "name": "a"}], "no 'id'"),
        ([TOOLS[0], TOOLS[0]], "2 names the tool sky/weather a second time"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(
    store: Store, tmp_path: Path, rows: list[object], said: str
) -> None:
    with pytest.raises(BadLine, match=said):
        import_tools(ToolRecords(store), write(tmp_path / "tools.jsonl", rows))
    assert ToolRecords(store).current() == []
