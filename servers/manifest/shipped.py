"""The manifests that come with this package, and the few of them that a gateway without configuration serves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from servers.errors import ManifestError
from servers.manifest import files

STARTERS: Final = ("humanize", "jellyfish", "python-slugify", "tabulate", "webcolors", "xmltodict")
"""Small services of everyday use, whose environments are a few hundred kilobytes of wheels each."""


def directory() -> Path:
    """The folder of the shipped manifests: in a wheel beside this package, in a checkout at its root."""
    packed = Path(__file__).parents[1] / "shipped"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "manifests"


def names() -> list[str]:
    """The services that are shipped, in alphabetical order."""
    folder = directory()
    try:
        return sorted(path.name for path in folder.iterdir() if (path / files.FILE).is_file())
    except OSError:
        return []


def locate(wanted: str) -> Path:
    """The folder of a shipped service by its name, or a folder (or manifest file) of one's own by its path.

    A word without a separator is looked up among the shipped ones first; ``./word`` is always a path.

    :raises ManifestError: there is neither.
    """
    is_word = os.sep not in wanted and wanted not in ("", os.curdir, os.pardir)
    if is_word and (directory() / wanted / files.FILE).is_file():
        return directory() / wanted
    path = files.path_of(Path(wanted).expanduser().absolute())
    if path.is_file():
        return path.parent if path.name.startswith("manifest.") else path
    raise ManifestError(
        f"There is no converted service '{wanted}'.",
        "`toolyard manifests` lists those that come with Toolyard; for one of your own, "
        "name the folder that `toolyard convert --out` wrote.",
    )
