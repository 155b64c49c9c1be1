"""Running a console script: a process of its own in a directory of its own."""

from __future__ import annotations

import atexit
import base64
import contextlib
import importlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any

from . import options
from .problems import BadArgument

MAX_OUTPUT = 1_000_000
MAX_FILE = 200_000
_STARTER = (
    "import sys,importlib\n"
    "name,module,path=sys.argv[1:4]\n"
    "sys.argv=[name]+sys.argv[4:]\n"
    "found=importlib.import_module(module)\n"
    "for part in path.split('.'):\n"
    "    found=getattr(found,part)\n"
    "sys.exit(found())\n"
)


def words(argv: list[str], sub: list[str]) -> list[str]:
    """The whole argument list after the script's name; the leading subcommand words may be left out."""
    return argv if not sub or argv[:1] == sub[:1] else sub + argv


def run(tool: dict[str, Any], arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run a script; returns stdout, stderr, exit code, and the files that it made or changed.

    :raises BadArgument: arguments that are no strings, or file names that leave the directory.
    """
    script, *sub = tool["qualname"].removeprefix("cli:").split(" ")
    argv = arguments.get(tool.get("argv_property") or "argv") or []
    stdin = arguments.get(tool.get("stdin_property") or "stdin") or ""
    files = arguments.get(tool.get("files_property") or "files") or {}
    if not isinstance(argv, list) or not all(isinstance(item, (str, int, float)) for item in argv):
        raise BadArgument("'argv' must be a list of strings")
    folder = tempfile.mkdtemp(prefix="run-")
    try:
        put(folder, files)
        given = words([str(each) for each in argv], sub) + options.argv(tool.get("options") or [], arguments)
        entry = tool.get("entry")
        if (
            entry
            and sys.platform == "linux"
            and threading.active_count() == 1
            and not holds_arguments(_found(entry))
        ):
            return _run_forked(script, entry, given, str(stdin), folder, seconds)
        return _run(command(script, entry) + given, str(stdin), folder, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(entry: str) -> Any:
    """What an entry point names."""
    module, _, path = entry.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def holds_arguments(found: Any) -> bool:
    """Whether a script's function took its default arguments from the command line when it was imported.

    ``def main(argv=sys.argv[1:])`` has those of this process for ever; only a process of its own has others.
    """
    found = inspect.unwrap(found) if callable(found) else found
    defaults = getattr(found, "__defaults__", None) or ()
    return any(isinstance(each, list) and each is not sys.argv for each in defaults)


def command(script: str, entry: str | None) -> list[str]:
    """How to start a script with this environment's Python."""
    path = os.path.join(os.path.dirname(sys.executable), script)
    if entry:
        module, _, name = entry.partition(":")
        return [sys.executable, "-X", "utf8", "-c", _STARTER, path, module, name]
    return [sys.executable, "-X", "utf8", path]


def put(folder: str, files: Any) -> None:
    """Write a caller's files below a directory. Raises BadArgument where a name leads out of it."""
    if not isinstance(files, dict):
        raise BadArgument("'files' must be an object of names and texts")
    root = os.path.realpath(folder)
    for name, text in files.items():
        path = os.path.realpath(os.path.join(root, name))
        if not path.startswith(root + os.sep):
            raise BadArgument(f"the file name '{name}' leads out of the working directory")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        data = text.encode() if isinstance(text, str) else base64.b64decode(text["base64"])
        with open(path, "wb") as file:
            file.write(data)


def _run(argv: list[str], stdin: str, folder: str, seconds: float) -> dict[str, Any]:
    before = _state(folder)
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=folder, env=environment
        ) as child,
    ):
        hung = False
        try:
            child.communicate(stdin.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            hung = True
            child.send_signal(signal.SIGKILL)
            child.wait()
        except BrokenPipeError:
            child.wait(seconds)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(MAX_OUTPUT).decode("utf-8", "replace"))
    return {
        "stdout": texts[0],
        "stderr": texts[1],
        "exit_code": child.returncode,
        "hung": hung,
        "files": changed(folder, before),
    }


def _run_forked(
    script: str, entry: str, argv: list[str], stdin: str, folder: str, seconds: float
) -> dict[str, Any]:
    """Run a script in a copy of this process, which has imported its module already."""
    module, _, path = entry.partition(":")
    importlib.import_module(module)
    before = _state(folder)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for number, stream in enumerate((given, out, err)):
                    os.dup2(stream.fileno(), number)
                os.chdir(folder)
                code = _become(script, module, path, argv)
            finally:
                os._exit(code)
        status, hung = _await(child, seconds)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(MAX_OUTPUT).decode("utf-8", "replace"))
    return {
        "stdout": texts[0],
        "stderr": texts[1],
        "exit_code": os.waitstatus_to_exitcode(status),
        "hung": hung,
        "files": changed(folder, before),
    }


def _become(script: str, module: str, path: str, argv: list[str]) -> int:
    """What the script's own process would do; returns its exit code."""
    os.environ.update({"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"})
    sys.argv[:] = [os.path.join(os.path.dirname(sys.executable), script), *argv]
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    code: Any = None
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        code = found()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for handler in (atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(OSError, ValueError):
            handler()
    return (code or 0) & 0xFF


def _await(child: int, seconds: float) -> tuple[int, bool]:
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, False
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1], True
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def _state(folder: str) -> dict[str, tuple[int, int]]:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            status = os.lstat(path)
            found[os.path.relpath(path, folder)] = (status.st_mtime_ns, status.st_size)
    return found


def changed(folder: str, before: dict[str, tuple[int, int]]) -> dict[str, str]:
    """The text files made or changed since ``before``, name to text; others as a note of their size."""
    found: dict[str, str] = {}
    for name, state in sorted(_state(folder).items()):
        path = os.path.join(folder, name)
        if before.get(name) == state or os.path.islink(path) or len(found) >= 20:
            continue
        with open(path, "rb") as file:
            data = file.read(MAX_FILE)
        try:
            found[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            found[name] = f"<{state[1]} bytes that are no text>"
    return found


state = _state
