"""Closeness in meaning, by the encoder that search uses."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from router.planner.rules.choose import Matrix, Similar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.embed.encoder import Encoder

REMEMBERED: Final = 20_000
"""Tool texts whose vectors are kept: 30 MB."""


def by_encoder(cache: Path, say: Callable[[str], None]) -> Similar:
    """Closeness by the encoder exported in ``cache``, which is exported first where it is not there.

    :raises ModelMissing: ``toolyard[search]`` is not installed.
    :raises RegistryError: the model is not the published one, or cannot be exported.
    """
    from registry.embed.prepare import prepare

    return similarity(prepare(cache, say=say))


def similarity(encoder: Encoder) -> Similar:
    """Closeness by an encoder; a tool's text is encoded once and remembered."""
    known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
    lock = threading.Lock()

    def similar(asked: Sequence[str], tools: Sequence[str]) -> Matrix:
        import numpy as np

        with lock:
            have = {text: known[text] for text in tools if text in known}
        fresh = [text for text in dict.fromkeys(tools) if text not in have]
        if fresh:
            have.update(zip(fresh, encoder.encode_documents(fresh), strict=True))
        with lock:
            for text in dict.fromkeys(tools):
                known[text] = have[text]
                known.move_to_end(text)
            while len(known) > REMEMBERED:
                known.popitem(last=False)
        rows: Matrix = (encoder.encode_queries(asked) @ np.stack([have[text] for text in tools]).T).tolist()
        return rows

    return similar
