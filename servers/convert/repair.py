"""What an environment lacks, told from the evidence of imports that failed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from packaging.utils import canonicalize_name

from servers.convert.distribution import Distribution
from servers.manifest.records import Repair

_KNOWN: Final = {
    "attr": "attrs", "bs4": "beautifulsoup4", "cairosvg": "CairoSVG", "cv2": "opencv-python-headless",
    "crypto": "pycryptodome", "dateutil": "python-dateutil", "docx": "python-docx", "dotenv": "python-dotenv",
    "fitz": "PyMuPDF", "git": "GitPython", "google.protobuf": "protobuf", "jose": "python-jose",
    "jwt": "PyJWT", "levenshtein": "Levenshtein", "magic": "python-magic", "markdown": "Markdown",
    "mpl_toolkits": "matplotlib", "mysqldb": "mysqlclient", "openssl": "pyOpenSSL", "pil": "Pillow",
    "pptx": "python-pptx", "psycopg2": "psycopg2-binary", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "slugify": "python-slugify", "socks": "PySocks", "usb": "pyusb",
    "yaml": "PyYAML", "zmq": "pyzmq", "six": "six", "typing_extensions": "typing_extensions",
    "numpy": "numpy", "requests": "requests", "click": "click", "tqdm": "tqdm", "lxml": "lxml",
    "pytz": "pytz", "chardet": "chardet", "regex": "regex", "toml": "toml", "tomli_w": "tomli_w",
    "tomlkit": "tomlkit", "rich": "rich", "jinja2": "Jinja2", "pygments": "Pygments", "packaging": "packaging",
    "colorama": "colorama", "termcolor": "termcolor", "scipy": "scipy", "pandas": "pandas",
    "sympy": "sympy", "networkx": "networkx", "importlib_metadata": "importlib_metadata",
    "importlib_resources": "importlib_resources", "docopt": "docopt", "tabulate": "tabulate",
    "simplejson": "simplejson", "future": "future", "past": "future", "decorator": "decorator",
    "wcwidth": "wcwidth", "html5lib": "html5lib", "pyparsing": "pyparsing", "nltk": "nltk",
    "matplotlib": "matplotlib", "cryptography": "cryptography", "httpx": "httpx", "pydantic": "pydantic",
}  # fmt: skip
"""Imports whose distribution is beyond doubt. A name that is not here is never guessed: whoever registers a
guessed name would run code in the service."""
_SETUPTOOLS: Final = {
    "pkg_resources": "setuptools<81",
    "distutils": "setuptools<81",
    "setuptools": "setuptools<81",
}
_FOR_DEVELOPERS: Final = re.compile(
    r"dev|test|doc|lint|typ|mypy|ci$|build|release|qa|bench|cov|style|format|check|publish|example|tox|nox|deploy"
)
_HEAVY: Final = {
    "torch", "tensorflow", "jax", "numba", "pyspark", "dask", "cupy", "polars", "pyarrow", "scipy", "pandas",
    "matplotlib", "scikit-learn", "opencv-python", "transformers", "ray", "pyqt5", "pyside6", "jupyter",
    "notebook", "ipython", "spacy", "nltk", "bokeh", "plotly", "altair", "boto3", "llvmlite",
}  # fmt: skip


def missing_in(text: str) -> str | None:
    """The module that an error text says is not installed."""
    match = re.search(r"No module named '?([\w.]+)'?", text)
    return match.group(1) if match else None


def needed(distribution: Distribution, modules: Iterable[str], evidence: str) -> list[Repair]:
    """Repairs for imports without which part of the package does not work.

    An extra of the same distribution first, then the table, then setuptools for ``pkg_resources``.
    """
    found: list[Repair] = []
    for module in modules:
        top = module.split(".")[0]
        if top in distribution.packages:
            continue
        extra = _extra_with(distribution, top)
        if extra is not None:
            made = Repair(f"{distribution.name}[{extra}]", f"{evidence}: no module '{module}'", "extra")
        elif top in _SETUPTOOLS:
            made = Repair(_SETUPTOOLS[top], f"{evidence}: no module '{module}'", "setuptools")
        elif top.lower() in _KNOWN:
            made = Repair(_KNOWN[top.lower()], f"{evidence}: no module '{module}'", "table")
        else:
            continue
        if made.requirement not in {each.requirement for each in found}:
            found.append(made)
    return found


def offered(distribution: Distribution, missing: Iterable[dict[str, str]]) -> list[Repair]:
    """Extras that the package itself tried to import and did without: more of it works with them.

    Heavy ones and those for developers are left out.
    """
    found: dict[str, Repair] = {}
    for each in missing:
        extra = _extra_with(distribution, each["module"].split(".")[0], light=True)
        if extra is not None and extra not in found:
            evidence = f"{each['by']} tried to import '{each['module']}'"
            found[extra] = Repair(f"{distribution.name}[{extra}]", evidence, "extra")
    return list(found.values())


def _extra_with(distribution: Distribution, module: str, *, light: bool = False) -> str | None:
    """The smallest extra, not one for developers, that brings a module."""
    fitting = []
    for extra, requirements in distribution.extras.items():
        if _FOR_DEVELOPERS.search(extra.lower()):
            continue
        names = {canonicalize_name(requirement.name) for requirement in requirements}
        if not any(_brings(name, module) for name in names) or (light and names & _HEAVY):
            continue
        fitting.append((len(names), extra))
    return min(fitting)[1] if fitting else None


def _brings(name: str, module: str) -> bool:
    known = _KNOWN.get(module.lower())
    return name == canonicalize_name(module) or (known is not None and name == canonicalize_name(known))


def is_light(distribution: Distribution, repaired: Repair) -> bool:
    """Whether an extra brings none of the heavy distributions."""
    extra = repaired.requirement.partition("[")[2].rstrip("]")
    names = {canonicalize_name(requirement.name) for requirement in distribution.extras.get(extra, ())}
    return not names & _HEAVY
