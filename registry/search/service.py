"""Search as the gateway has it: opened on first use, kept in step with the store, degrading out loud.

service = SearchService(store, cache, say=log)
service.open()                    # words at once, vectors as far as they are stored
service.prepare()                 # in a thread: the model, then the vectors that are missing
service.find("book a flight")     # any time, from any thread
service.apply(sync_report)        # after each sync
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from registry import document
from registry.embed import prepare as models
from registry.embed.encoder import Encoder
from registry.embed.weights import DEFAULT_MODEL
from registry.errors import IndexDamaged, SearchError
from registry.search.engine import Found, Searcher
from registry.search.index import ToolIndex
from registry.search.scope import Scope
from registry.store import Store
from registry.sync import SyncReport
from registry.tools import Statistics, ToolRecords

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.vector.records import VectorRecords

EMBED_BATCH: Final = 64
"""Tools that are embedded and stored together: what a kill can cost."""
LOAD_BATCH: Final = 500
"""Vectors that are read at a time: all at once would be in memory three times."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the self-check found; printed by ``doctor`` and ``registry check``.

    :param mode: ``hybrid`` or ``lexical``.
    :param problems: each a sentence; empty where all is well.
    """

    mode: str
    model: str | None
    tools: int
    vectors: int
    lacking: int
    approximate: bool
    problems: tuple[str, ...]


class SearchService:
    """Search over a store. `open` first; every method may be called from any thread and blocks.

    :param cache: folder for what is derived: exported models and index generations.
    :param model: a model's name or folder; None for search by words.
    :param say: hears each change of what search can do, one sentence at a time.
    """

    def __init__(
        self,
        store: Store,
        cache: Path,
        *,
        model: str | None = DEFAULT_MODEL,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.records = ToolRecords(store)
        self._store = store
        self._cache = cache
        self._name = model
        self._say = say
        self._problems: list[str] = []
        self._statistics: Mapping[tuple[str, str], Statistics] = {}
        self._vectors: VectorRecords | None = None
        self._generation = -1
        self._embedding = threading.Lock()
        self._searcher = Searcher(ToolIndex(), known=lambda: self._statistics)

    @property
    def searcher(self) -> Searcher:
        """The searcher over the current index."""
        return self._searcher

    def open(self) -> None:
        """Index every tool by its words, and by its vectors where the model is ready and they are stored.

        :raises StoreError: the store could not be read.
        """
        encoder: Encoder | None = None
        if self._name is not None:
            try:
                encoder = self._ready(self._name)
            except SearchError as error:
                self._trouble(f"Search is by words alone. {error}")
        self._generation = self.records.generation()
        self._statistics = self.records.statistics()
        self._searcher = Searcher(self._new_index(encoder), encoder, known=lambda: self._statistics)
        if encoder is not None:
            self._use(encoder)

    def _ready(self, name: str) -> Encoder | None:
        lacking = models.missing(export=False)
        if lacking:
            self._trouble(
                f"Search is by words alone: {', '.join(lacking)} not installed. "
                "Install toolyard[search] to find tools by meaning."
            )
            return None
        encoder = models.load(self._cache, name)
        if encoder is None:
            self._say("Search is by words until the model is prepared.")
        return encoder

    def _new_index(self, encoder: Encoder | None) -> ToolIndex:
        vectors = None
        if encoder is not None:
            from registry.vector.index import VectorIndex

            vectors = VectorIndex(encoder.dimension)
        index = ToolIndex(vectors)
        for ref, body in self.records.definitions():
            try:
                index.put(document.read(ref.server, body))
            except (ValueError, RecursionError) as error:
                self._trouble(f"The tool {ref.server}/{ref.name} cannot be searched for: {error}")
        return index

    def prepare(self, progress: Callable[[int, int], None] = lambda done, total: None) -> bool:
        """Export the model where that was not done, and embed what has no vector. Returns success.

        Search by words goes on meanwhile, and search by meaning from the moment it is possible. What
        cannot be had is said, and search goes on without it.
        """
        if self._name is None:
            return False
        with self._embedding:
            encoder = self._searcher.encoder
            if encoder is None:
                try:
                    encoder = models.prepare(self._cache, self._name, say=self._say)
                except SearchError as error:
                    self._trouble(f"Search is by words alone. {error}")
                    return False
                self._use(encoder)
            self._embed(encoder, progress)
            self._invert(self._searcher.index)
        return True

    def _invert(self, index: ToolIndex) -> None:
        """Where there are very many tools, search through FAISS's inverted file from here on."""
        with index.lock:
            wanting = None if index.vectors is None else index.vectors.wanting()
        if wanting is None:
            return
        from registry.vector.index import inverted

        try:
            made = inverted(*wanting)
        except ImportError:
            self._trouble("faiss is not installed: search stays exact, and slows down with this many tools.")
            return
        with index.lock:
            if index.vectors is not None:
                index.vectors.adopt(made, wanting[0])

    def _use(self, encoder: Encoder) -> None:
        """Search by meaning from here on, with the vectors that are stored."""
        from registry.vector.index import VectorIndex
        from registry.vector.records import VectorRecords

        self._vectors = VectorRecords(self._store, encoder.model, encoder.dimension)
        index = self._searcher.index
        with index.lock:
            if index.vectors is None:
                index.vectors = VectorIndex(encoder.dimension)
        self._load_vectors(index)
        self._searcher.encoder = encoder
        self._use_adapter(encoder)

    def _use_adapter(self, encoder: Encoder) -> None:
        from registry.feedback.records import AdapterRecords

        try:
            self._searcher.adapt = AdapterRecords(self._store).current(encoder.model)
        except IndexDamaged as error:
            self._searcher.adapt = None
            self._trouble(str(error))

    def learn(self) -> dict[str, Any]:
        """Train the query adapter on feedback in a child, and search with it where it is better.

        Blocks; run it in a thread. Returns the report of `registry.feedback.child.train`.

        :raises SearchError: search by meaning is not ready, or the child failed.
        """
        from registry.feedback import child

        encoder = self._searcher.encoder
        if encoder is None or self._name is None:
            raise SearchError("There is no model to adapt.", "Prepare search by meaning first.")
        report = child.train(self._store, self._cache, self._name)
        self._use_adapter(encoder)
        return report

    def _load_vectors(self, index: ToolIndex) -> None:
        """From the latest generation file where it is sound, else from the store."""
        from registry.vector import generation

        if self._vectors is None or index.vectors is None:
            return
        try:
            made = generation.read(self._cache / "index", self._vectors.model)
        except IndexDamaged as error:
            self._trouble(str(error))
            made = None
        if made is not None and made.rows.shape[1] == self._vectors.dimension:
            for start in range(0, len(made.keys), LOAD_BATCH):
                end = start + LOAD_BATCH
                index.put_vectors(dict(zip(made.keys[start:end], made.rows[start:end], strict=True)))
        wanted = [(ref.server, ref.hash) for ref in index.lacking()]
        wrong = 0
        for start in range(0, len(wanted), LOAD_BATCH):
            found, damaged = self._vectors.get(wanted[start : start + LOAD_BATCH])
            index.put_vectors(found)
            wrong += len(damaged)
        if wrong:
            self._trouble(f"{wrong} stored vectors are damaged; these tools are embedded again.")

    def _embed(self, encoder: Encoder, progress: Callable[[int, int], None]) -> int:
        """Embed and store every tool that has no vector; then write a generation. Returns how many."""
        index, vectors = self._searcher.index, self._vectors
        if vectors is None:
            return 0
        lacking = {(ref.server, ref.hash) for ref in index.lacking()}
        if not lacking:
            return 0
        bodies = {(ref.server, ref.hash): body for ref, body in self.records.definitions()}
        keys = [key for key in sorted(lacking) if key in bodies]
        for start in range(0, len(keys), EMBED_BATCH):
            batch = keys[start : start + EMBED_BATCH]
            rows = embed(encoder, [document.read(server, bodies[server, digest]) for server, digest in batch])
            vectors.put(batch, rows)
            index.put_vectors(dict(zip(batch, rows, strict=True)))
            progress(start + len(batch), len(keys))
        self.write_generation()
        return len(keys)

    def apply(self, report: SyncReport) -> int:
        """Bring a sync's changes into the index. Returns how many tools wait to be embedded (`prepare`)."""
        index = self._searcher.index
        for change in report.deleted:
            index.remove(change.server, change.name)
        for change in (*report.created, *report.updated):
            if change.body is not None:
                try:
                    index.put(document.read(change.server, change.body))
                except (ValueError, RecursionError) as error:
                    index.remove(change.server, change.name)
                    self._trouble(f"The tool {change.server}/{change.name} cannot be searched for: {error}")
        if report.changes:
            if report.generation == self._generation + 1:  # else another process changed tools in between
                self._generation = report.generation
            if self._vectors is not None:
                found, _ = self._vectors.get([(ref.server, ref.hash) for ref in index.lacking()])
                index.put_vectors(found)
            if index.crowded():
                self.reindex()
        return len(index.lacking())

    def follow(self) -> bool:
        """Take over from the store what another process changed. Returns whether there was anything.

        Only what differs is read, so that a change among very many tools costs little.
        """
        encoder = self._searcher.encoder
        if encoder is not None:
            self._use_adapter(encoder)
        generation = self.records.generation()
        if generation == self._generation:
            return False
        index = self._searcher.index
        offered = set(self.records.current())
        held = {ref for _, ref in index.living()}
        if offered != held:
            gone = {ref[:2] for ref in held} - {ref[:2] for ref in offered}
            for server, name in gone:
                index.remove(server, name)
            for ref, body in self.records.definitions(offered - held):
                try:
                    index.put(document.read(ref.server, body))
                except (ValueError, RecursionError) as error:
                    self._trouble(f"The tool {ref.server}/{ref.name} cannot be searched for: {error}")
            self._load_vectors(index)
        self._generation = generation
        self._statistics = self.records.statistics()
        if index.crowded():
            self.reindex()
        return True

    def reindex(self) -> None:
        """Make the index anew from the store; searches go on over the old one meanwhile."""
        self._generation = self.records.generation()
        self._statistics = self.records.statistics()
        index = self._new_index(self._searcher.encoder)
        self._load_vectors(index)
        self._searcher.index = index

    def find(
        self, request: str, limit: int = 10, scope: Scope | None = None, *, collapse: bool = True
    ) -> Found:
        """The tools that answer a request (see `Searcher.find`)."""
        return self._searcher.find(request, limit, scope, collapse=collapse)

    def write_generation(self) -> int | None:
        """Write the vectors as the next generation file. None where there are none."""
        from registry.vector import generation

        index, vectors = self._searcher.index, self._vectors
        if vectors is None or index.vectors is None:
            return None
        with index.lock:
            has = index.vectors.has
            pairs = [(slot, (ref.server, ref.hash)) for slot, ref in index.living() if has(slot)]
            rows = index.vectors.matrix(index.slots)[[slot for slot, _ in pairs]]
        if not pairs:
            return None
        folder = self._cache / "index"
        generation.clean(folder)
        return generation.write(folder, vectors.model, [key for _, key in pairs], rows)

    def check(self) -> Health:
        """Compare the index with the store: no tool missing, no vector null or of a wrong size."""
        index = self._searcher.index
        offered = set(self.records.current())
        problems = list(self._problems)
        with index.lock:
            held = {ref for _, ref in index.living()}
            lacking = len(index.lacking())
            vectors = 0 if index.vectors is None else len(index.vectors)
            approximate = index.vectors is not None and index.vectors.approximate
            if index.vectors is not None and vectors:
                problems.extend(_null_vectors(index))
        if offered != held:
            problems.append(
                f"The index lacks {len(offered - held)} tools and holds {len(held - offered)} that are gone; "
                "run `toolyard registry reindex`."
            )
        if self._searcher.encoder is not None and lacking:
            problems.append(f"{lacking} tools have no vector yet and are found by words alone.")
        encoder = self._searcher.encoder
        return Health(
            mode="hybrid" if encoder is not None and vectors else "lexical",
            model=None if encoder is None else encoder.model,
            tools=len(held),
            vectors=vectors,
            lacking=lacking,
            approximate=approximate,
            problems=tuple(problems),
        )

    def _trouble(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)
            self._say(text)


def embed(encoder: Encoder, documents: Sequence[document.ToolDocument]) -> NDArray[np.float32]:
    """The vector of each tool: the mean of its texts' vectors, at unit length."""
    import numpy as np

    texts = [document.embedding_texts(one) for one in documents]
    flat = encoder.encode_documents([text for several in texts for text in several])
    out = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    start = 0
    for row, several in enumerate(texts):
        mean = flat[start : start + len(several)].mean(axis=0)
        out[row] = mean / np.maximum(np.linalg.norm(mean), np.float32(1e-9))
        start += len(several)
    return out


def _null_vectors(index: ToolIndex) -> list[str]:
    import numpy as np

    if index.vectors is None:
        return []
    rows = index.vectors.matrix(index.slots)[index.vectors.covered(index.slots)]
    bad = int((~(np.abs(np.linalg.norm(rows, axis=1) - 1.0) < 0.01)).sum())
    return [f"{bad} vectors are null or not of unit length; run `toolyard registry reindex`."] if bad else []
