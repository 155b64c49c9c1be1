"""The flat arrays of one forward pass. Numpy only: both sides of the seam read them without a copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.scheduler import Chunk, Step

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, R of which want logits.

    ids, positions, slots: [T]; a slot is page * page_size + offset, where the token's keys and values go.
    starts: [S + 1], the first token of each sequence. tables: [S, W], page numbers of each sequence.
    rows: [R], tokens whose logits are wanted, in order.
    """

    ids: Ints
    positions: Ints
    slots: Ints
    starts: Ints
    tables: Ints
    rows: Ints

    @classmethod
    def of(cls, step: Step, page_size: int) -> Batch:
        ids: list[int] = []
        positions: list[int] = []
        starts = [0]
        rows: list[int] = []
        slots: list[int] = []
        width = max(len(c.seq.pages) for c in step.chunks)
        tables = np.zeros((len(step.chunks), width), np.int32)
        for i, chunk in enumerate(step.chunks):
            seq, start, end = chunk.seq, chunk.start, chunk.start + chunk.size
            if chunk.size == 1:
                ids.append(seq.tokens[start])
            else:
                ids += seq.tokens[start : start + chunk.count]
                ids += chunk.draft
            positions += range(start, end)
            tables[i, : len(seq.pages)] = seq.pages
            slots += [seq.pages[p // page_size] * page_size + p % page_size for p in range(start, end)]
            starts.append(len(ids))
            if chunk.sample:
                rows += range(len(ids) - wanted_rows(chunk), len(ids))
        return cls(_array(ids), _array(positions), _array(slots), _array(starts), tables, _array(rows))


def _array(values: list[int]) -> Ints:
    return np.array(values, np.int32)


def wanted_rows(chunk: Chunk) -> int:
    """Logit rows of a chunk: one for its last known token, one for each drafted token after it."""
    return 1 + len(chunk.draft) if chunk.sample else 0
