"""Start of a worker: ``ENV/bin/python -I servers/worker``.

The interpreter puts this folder on ``sys.path``; it is taken off again before anything of the target is
imported, and the folder becomes the package ``toolyard_worker``.
"""

import importlib.util
import os
import sys


def _load() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = importlib.util.spec_from_file_location(
        "toolyard_worker", os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    if spec is None or spec.loader is None:
        sys.exit("The worker's own files are missing; install Toolyard again.")
    package = importlib.util.module_from_spec(spec)
    sys.modules["toolyard_worker"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _load()
    from toolyard_worker import loop  # type: ignore[import-not-found]

    loop.run()
