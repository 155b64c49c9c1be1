"""Training in a process of its own: seconds to minutes of CPU that no call shall wait for.

``python -m registry.feedback.child CACHE MODEL FOLDER`` reads the store that ``$TOOLYARD_STORE`` names (its URL
may hold a password, which a command line would show to everybody) and writes, into FOLDER, ``report.json`` and,
where a better adapter came out, ``adapter``. `train` runs it and keeps the result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from registry.errors import SearchError
from registry.feedback.adapter import Adapter
from registry.feedback.records import AdapterRecords
from registry.store import Store

SECONDS: Final = 1800.0


class TrainingFailed(SearchError):
    """The child that trains an adapter failed."""

    kind = "training_failed"


def train(store: Store, cache: Path, model: str, *, timeout: float = SECONDS) -> dict[str, Any]:
    """Train on the store's feedback, keep what is better, and say what came out.

    Blocks until the child is done. Returns ``{"kept", "version", "pairs", "held_back", "plain",
    "current", "trained"}``, the last three being NDCG@10 on held-back feedback.

    :raises TrainingFailed: the child failed or took longer than ``timeout`` seconds.
    :raises StoreError: the result could not be kept.
    """
    with tempfile.TemporaryDirectory(prefix="toolyard-train-") as folder:
        command = [sys.executable, "-P", "-m", "registry.feedback.child"]
        command += [str(cache), model, folder]
        # One thread: training shares the machine with calls.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["TOOLYARD_STORE"] = store.place
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TrainingFailed(f"Training took longer than {timeout:.0f} s and was stopped.") from error
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise TrainingFailed(
                f"Training failed (exit code {done.returncode}): {lines[-1] if lines else 'it said nothing'}"
            )
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        if report["kept"]:
            AdapterRecords(store).put(Adapter.load((Path(folder) / "adapter").read_bytes()), report)
    return report


def main(place: str, cache: str, model: str, folder: str) -> None:
    from registry.feedback import training
    from registry.search.service import SearchService

    with Store.open(place, readonly=True) as store:
        service = SearchService(
            store, Path(cache), model=model, say=lambda line: print(line, file=sys.stderr)
        )
        service.open()
        encoder = service.searcher.encoder
        if encoder is None:
            raise SystemExit("search by meaning is not ready, so there is nothing to train")
        records = AdapterRecords(store)
        learned = training.learn(
            service.searcher,
            service.records.feedback(),
            records.current(encoder.model),
            version=records.next_version(),
        )
    report = {
        "kept": learned.kept,
        "version": None if learned.adapter is None else learned.adapter.version,
        "pairs": learned.pairs,
        "held_back": learned.held_back,
        "plain": round(learned.plain, 4),
        "current": round(learned.current, 4),
        "trained": round(learned.trained, 4),
    }
    if learned.adapter is not None:
        (Path(folder) / "adapter").write_bytes(learned.adapter.dump())
    (Path(folder) / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    from registry.orphans import end_with_parent

    end_with_parent()
    main(os.environ["TOOLYARD_STORE"], *sys.argv[1:4])
