"""What tools cost a client in tokens, listed in full or searched: ``python -m tests.benchmarks.retrieval.tokens FOLDER``.

Each folder in it with ``tools.jsonl`` and ``queries.jsonl`` is a set; all its tools are one catalog. The
list and the answers are the product's own, schemas included: a ``tools/list`` of a toolset that lists
everything, against one of ``find_tools`` and ``call_tool`` and, a request, the call of ``find_tools`` and
the text it answers. Beside it stands how many of the wanted tools are in the answers: a saving that loses
tools is none. Tokens are those of ``--tokenizer FILE`` (a ``tokenizer.json``), or else bytes / 4.

``--words`` searches by words alone; else the model is prepared, in ``--work``, which keeps it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.catalog import Catalog, NameBook, NamePolicy
from gateway.toolsets import finding, meta
from gateway.toolsets.project import BYTES_PER_TOKEN, Projection, project
from registry import exchange
from registry.model import ItemKind, Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.search.service import SearchService
from registry.store import Store
from registry.tools import ToolRecords
from registry.toolsets import Toolset
from tests.benchmarks.retrieval.metrics import score

DEPTHS = (3, meta.FOUND, 10, 20)
REQUESTS = (1, 5, 20)
"""Searches of one conversation."""

ONE_PAGE = 1_000_000
"""Items on a page: what a client reads in all, whichever pages it comes in."""

Count = Callable[[bytes], int]


@dataclass(frozen=True)
class Row:
    """One set at one number of tools an answer.

    :param full: tokens of the list of every tool.
    :param listed: tokens of the list of the two meta tools.
    :param a_request: mean tokens of a ``find_tools`` call and its answer.
    :param recall: percent of the wanted tools in the answer; ``complete``, of requests with all of them.
    :param saved: percent of ``full`` saved in a conversation of so many searches.
    """

    name: str
    tools: int
    requests: int
    mode: str
    limit: int
    full: int
    listed: int
    a_request: float
    recall: float
    complete: float
    saved: dict[int, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every set, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="these sets alone")
    parser.add_argument("--sample", type=int, default=200, help="requests of each set, evenly taken")
    parser.add_argument("--words", action="store_true", help="search by words alone")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--work", type=Path, help="where models and vectors are kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    count = counter(options.tokenizer)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as made:
        for folder in sorted(options.folder.iterdir()):
            if (folder / "tools.jsonl").exists() and (not options.only or folder.name in options.only):
                work = (options.work or Path(made)) / folder.name
                rows += measure(folder, work, count, options.sample, words=options.words)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows)
    return 0


def counter(tokenizer: Path | None) -> Count:
    """How many tokens a text has."""
    if tokenizer is None:
        return lambda data: -(-len(data) // BYTES_PER_TOKEN)
    from tokenizers import Tokenizer

    loaded: Any = Tokenizer.from_file(str(tokenizer))
    loaded.no_truncation()
    loaded.no_padding()
    return lambda data: len(loaded.encode(data.decode(), add_special_tokens=False).ids)


def measure(folder: Path, work: Path, count: Count, sample: int, *, words: bool) -> list[Row]:
    """The rows of one set, one for each number of tools an answer."""
    work.mkdir(parents=True, exist_ok=True)
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in lines[:: max(1, len(lines) // sample)]][:sample]
    with Store.open(work / "toolyard.db") as store:
        records = ToolRecords(store)
        exchange.import_tools(records, folder / "tools.jsonl")
        catalog, ids = merged(records), exchange.imported_ids(records)
        service = SearchService(store, work.parent / "cache", model=None, say=say)
        if not words:
            service = SearchService(store, work.parent / f"cache-{folder.name}", say=say)
        service.open()
        if not words:
            service.prepare()
        listed = project(Toolset(name="all", expose="all"), catalog, {}, ONE_PAGE)
        searched = project(Toolset(name="search", expose="search"), catalog, {}, ONE_PAGE)
        full = count(listed.catalog.page(ItemKind.TOOL))
        short = count(searched.catalog.page(ItemKind.TOOL))
        return [
            ask(folder.name, service, searched, ids, queries, limit, (full, short), count) for limit in DEPTHS
        ]


def merged(records: ToolRecords) -> Catalog:
    """All stored tools as the catalog that a gateway would merge, on one page."""
    by_server: dict[str, list[bytes]] = {}
    for ref, body in records.definitions():
        shown = json.loads(body)
        shown.pop("_meta", None)  # the id of the data set, which no server sends
        by_server.setdefault(ref.server, []).append(json.dumps(shown, ensure_ascii=False).encode())
    servers, catalogs = [], {}
    for place, (name, tools) in enumerate(sorted(by_server.items())):
        spec = ServerSpec(name, Transport.HTTP, url="http://127.0.0.1/mcp")
        servers.append(Server(spec, Origin.CONFIG, place))
        catalogs[name] = ServerCatalog(name, "handshake", "2025-11-25", tools=tuple(tools))
    return Catalog.build(servers, catalogs, NameBook(NamePolicy.PREFIX), page_size=ONE_PAGE)


def ask(
    name: str,
    service: SearchService,
    projection: Projection,
    ids: Mapping[tuple[str, str], str],
    queries: Sequence[Mapping[str, Any]],
    limit: int,
    lists: tuple[int, int],
    count: Count,
) -> Row:
    """Answer the requests of a set, and add up what a client reads and whether it is what it wanted."""
    spent, recall, complete, mode = 0, 0.0, 0.0, ""
    for query in queries:
        found = service.find(query["query"][: meta.MAX_QUERY], limit)
        text, structured = finding.answer(found, projection)
        call = json.dumps({"query": query["query"], "limit": limit}, ensure_ascii=False)
        spent += count(call.encode()) + count(text.encode())
        ranked = [ids[hit.ref[:2]] for hit in found.hits]
        ranked += [ids[ref[:2]] for hit in found.hits for ref in hit.alike]  # named in the answer too
        scores = score(query, ranked, depth=len(ranked))
        recall += scores["recall@10"]
        complete += scores["complete@10"]
        mode = structured["mode"]
    full, short = lists
    each = spent / len(queries)
    return Row(
        name=name,
        tools=len(projection.tools),
        requests=len(queries),
        mode=mode,
        limit=limit,
        full=full,
        listed=short,
        a_request=round(each, 1),
        recall=round(100 * recall / len(queries), 1),
        complete=round(100 * complete / len(queries), 1),
        saved={n: round(100 * (1 - (short + n * each) / full), 1) for n in REQUESTS},
    )


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    searches = "  ".join(f"saved@{n:<3}" for n in REQUESTS)
    print(f"{'set':<16} {'tools':>6} {'full list':>10} {'k':>3} {'listed':>7} {'a search':>9} ", end="")
    print(f"{'recall':>7} {'complete':>9}  {searches}  mode")
    for row in rows:
        saved = "  ".join(f"{row.saved[n]:>7.1f} %" for n in REQUESTS)
        print(
            f"{row.name:<16} {row.tools:>6} {row.full:>10,} {row.limit:>3} {row.listed:>7,} "
            f"{row.a_request:>9,.0f} {row.recall:>7.1f} {row.complete:>9.1f}  {saved}  {row.mode}"
        )


def say(text: str) -> None:
    """Tell the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
