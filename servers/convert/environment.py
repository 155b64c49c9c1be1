"""A service's environment: resolved, locked with hashes, built once, found again by its lock."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from servers.convert import uv
from servers.errors import EnvironmentFailed, IndexUnreachable
from servers.manifest.records import Environment, Repair

_COMPLETE: Final = "toolyard-complete"


def environments_dir() -> Path:
    """Where environments live: ``$TOOLYARD_ENVIRONMENTS_DIR``, else the user's cache directory."""
    given = os.environ.get("TOOLYARD_ENVIRONMENTS_DIR")
    return (
        Path(given) if given else platformdirs.user_cache_path("toolyard", appauthor=False) / "environments"
    )


@dataclass(frozen=True, slots=True)
class Lock:
    """A resolved set of requirements.

    :ivar built: whether some of it has no wheel, so that installing it runs a build.
    """

    text: str
    hash: str
    built: bool


def python_version() -> str:
    """The version of Python that environments get: our own."""
    return platform.python_version()


def lock_hash(text: str) -> str:
    """The name of the environment that a lock makes here."""
    system = f"{python_version()} {platform.system()} {platform.machine()}"
    return hashlib.sha256(f"{system}\n{text}".encode()).hexdigest()


def resolve(requirements: Sequence[str], level: str, *, wheels_only: bool = False) -> Lock:
    """Resolve requirements to exact versions with hashes.

    :param level: the sandbox for the metadata of projects that have no wheel.
    :raises EnvironmentFailed: there is no solution.
    """
    arguments = ["pip", "compile", "-", "--generate-hashes", "--no-annotate", "--no-header", "-q"]
    arguments += ["--python", sys.executable, "--no-emit-index-url"]
    wanted = "\n".join(requirements) + "\n"
    built = False
    try:
        text = uv.run([*arguments, "--only-binary", ":all:"], stdin=wanted)
    except IndexUnreachable:
        raise
    except EnvironmentFailed:
        if wheels_only:
            raise
        text, built = uv.run_building(arguments, level, stdin=wanted), True
    else:
        if not wheels_only and _is_held_back(requirements[0], text, level):
            try:
                text, built = uv.run_building(arguments, level, stdin=wanted), True
            except EnvironmentFailed:
                pass  # the older release that wheels allow is better than none
    return Lock(text=text, hash=lock_hash(text), built=built)


def _is_held_back(wanted: str, text: str, level: str) -> bool:
    """Whether wheels alone gave an older release of what is converted than there is.

    One dependency without a wheel is enough to make a resolver go back for years.
    """
    from packaging.requirements import Requirement

    asked = Requirement(wanted)
    if asked.url or any(each.operator in ("==", "===") for each in asked.specifier):
        return False
    arguments = ["pip", "compile", "-", "--no-deps", "--no-annotate", "--no-header", "-q"]
    arguments += ["--python", sys.executable, "--no-emit-index-url"]
    try:
        newest = _version(
            uv.run_building(arguments, level, stdin=f"{asked.name}{asked.specifier}\n"), asked.name
        )
    except EnvironmentFailed:
        return False
    return newest != _version(text, asked.name)


def _version(text: str, name: str) -> str | None:
    """The version that a lock pins a distribution to."""
    from packaging.utils import canonicalize_name

    for line in text.splitlines():
        pinned, equals, rest = line.partition("==")
        if equals and canonicalize_name(pinned.partition("[")[0]) == canonicalize_name(name):
            return rest.split()[0]
    return None


def path_of(hash_: str) -> Path:
    """The directory of the environment with this lock hash."""
    return environments_dir() / hash_[:32]


def is_built(hash_: str) -> bool:
    """Whether that environment is there, whole."""
    return (path_of(hash_) / _COMPLETE).is_file()


def build(lock: Lock, level: str) -> Path:
    """The environment of a lock: built now, or found. Safe to call from several processes at once.

    :raises EnvironmentFailed: a hash does not match, or a build fails; nothing is left behind.
    """
    path = path_of(lock.hash)
    if is_built(lock.hash):
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    from filelock import FileLock  # here, because a service that finds its environment does without

    with FileLock(path.with_suffix(".lock")):
        if is_built(lock.hash):
            return path
        shutil.rmtree(path, ignore_errors=True)
        try:
            _install(lock, path, level)
            (path / _COMPLETE).write_text(lock.text)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    return path


def _install(lock: Lock, path: Path, level: str) -> None:
    uv.run(["venv", "-q", "--no-project", "--python", sys.executable, str(path)])
    arguments = ["pip", "sync", "-", "-q", "--require-hashes", "--compile-bytecode"]
    arguments += ["--python", str(path / "bin" / "python")]
    if not lock.built:
        uv.run([*arguments, "--only-binary", ":all:"], stdin=lock.text)
        return
    try:
        uv.run_building(arguments, level, write=(str(path),), stdin=lock.text)
    except IndexUnreachable:
        raise
    except EnvironmentFailed as error:
        raise EnvironmentFailed(
            f"Cannot build the environment: {error.message}",
            "A project without wheels is compiled here; it may need tools that are not installed.",
        ) from None


def find(environment: Environment) -> Path | None:
    """The environment that a manifest describes, where it has been built on this machine."""
    for hash_ in (environment.lock_hash, lock_hash(environment.lock)):
        if is_built(hash_):
            return path_of(hash_)
    return None


def rebuild(environment: Environment, level: str) -> Path:
    """The environment that a manifest describes, from its lock alone.

    :raises EnvironmentFailed: it was locked for another Python or platform, or cannot be built.
    """
    made = lock_hash(environment.lock)
    if made == environment.lock_hash or is_built(made):
        lock = Lock(environment.lock, made, built=True)
        if not is_built(made):
            try:
                return build(Lock(environment.lock, made, built=False), level)
            except IndexUnreachable:
                raise
            except EnvironmentFailed:
                return build(lock, level)
        return path_of(made)
    # Another Python or platform: the same exact versions, if the lock has files for it.
    return build(Lock(environment.lock, made, built=True), level)


def record(lock: Lock, repairs: Sequence[Repair]) -> Environment:
    """The manifest's record of an environment."""
    return Environment(python=python_version(), lock=lock.text, lock_hash=lock.hash, repairs=tuple(repairs))


def site_packages(path: Path) -> Path:
    """Where an environment keeps its packages. Raises EnvironmentFailed."""
    for found in path.glob("lib/python*/site-packages"):
        return found
    raise EnvironmentFailed(f"'{path}' is no environment.", "Convert the source again.")
