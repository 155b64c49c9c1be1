"""The worker's life: one JSON request a line on stdin, one JSON answer a line on the old stdout."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from . import commands, contain, invoke, render
from .coerce import Coercer, resolve
from .handles import Handles
from .problems import BadArgument

_COMPOSED_DEPTH = 4


class Worker:
    """Answers requests; what it keeps between them is its handles and the modules it imported."""

    def __init__(self, number: str) -> None:
        self.handles = Handles(number)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request's answer. Never raises: what goes wrong is in it."""
        operation = request["op"]
        if operation == "call":
            return self._timed(request)
        if operation == "import":
            return self._import(request)
        if operation == "discover":
            from . import survey

            return {"ok": True, **survey.survey(request)}
        if operation == "scripts":
            from . import scripts

            return {"ok": True, "commands": scripts.walk(request)}
        return {"ok": False, "error": {"kind": "protocol", "message": f"no operation '{operation}'"}}

    def _import(self, request: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        failed = {}
        with contain.quiet():
            for name in request["modules"]:
                try:
                    __import__(name)
                except (Exception, SystemExit) as error:  # foreign code
                    failed[name] = contain.describe(error)
        return {"ok": not failed, "failed": failed, "seconds": time.perf_counter() - start}

    def _timed(self, request: dict[str, Any]) -> dict[str, Any]:
        wall, before = time.perf_counter(), _usage()
        with _address_space(request.get("memory_mb")):
            answer = self._call(request)
        after = _usage()
        answer["usage"] = {
            "wall_ms": round((time.perf_counter() - wall) * 1000, 3),
            "cpu_ms": round((after[0] - before[0]) * 1000, 3),
            "peak_kb": after[1],
        }
        return answer

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        tool, caller = request["tool"], request.get("caller", "")
        with contain.quiet() as printed:
            try:
                if tool["kind"] == "cli":
                    return _command_answer(commands.run(tool, request["arguments"], request["seconds"]))
                return self._python(tool, request["arguments"], caller, request.get("tools", {}), printed)
            except BadArgument as problem:
                return _failed("bad_arguments", str(problem), printed)
            except contain.TooSlow:
                return _failed("timeout", "It ran past its time.", printed)
            except SystemExit as error:
                return _failed("exit", f"The function ended its process (exit {error.code}).", printed)
            except MemoryError:
                return _failed("memory", "The call needed more memory than its limit allows.", printed)
            except PermissionError as error:
                return _failed("sandbox", contain.describe(error), printed, error)
            except Exception as error:  # foreign code may raise anything; the caller is told what
                return _failed("raised", contain.describe(error), printed, error)

    def _python(
        self, tool: dict[str, Any], arguments: dict[str, Any], caller: str, tools: dict[str, Any],
        printed: contain.Capture,
    ) -> dict[str, Any]:  # fmt: skip
        arguments = dict(arguments)
        folder = None
        before: dict[str, tuple[int, int]] = {}
        home = os.getcwd()
        if tool.get("files_property"):
            folder = tempfile.mkdtemp(prefix="run-")
            commands.put(folder, arguments.pop(tool["files_property"], None) or {})
            before = commands.state(folder)
            os.chdir(folder)
        try:
            value = self._invoke(tool, arguments, caller, tools, 0)
            rendered = render.render(value)
            changed = commands.changed(folder, before) if folder else {}
        finally:
            if folder is not None:
                os.chdir(home)
                shutil.rmtree(folder, ignore_errors=True)
        text = printed.text()
        answer: dict[str, Any] = {"ok": True, "value": rendered.value, "type": _type_name(value)}
        if value is None and text:
            answer["value"] = text
        elif text:
            answer["log"] = text
        if rendered.opaque:
            answer["handle"] = self.handles.keep(caller, value)
            answer["whole"] = rendered.whole
        if rendered.cut:
            answer["cut"] = True
        if changed:
            answer["files"] = changed
        if rendered.images:
            import base64

            answer["images"] = [[mime, base64.b64encode(data).decode()] for mime, data in rendered.images]
        return answer

    def _invoke(
        self, tool: dict[str, Any], arguments: dict[str, Any], caller: str, tools: dict[str, Any], depth: int
    ) -> Any:
        module = tool["qualname"].partition(":")[0]

        def find(value: Any) -> Any:
            if isinstance(value, dict) and "$call" in value and len(value) == 1:
                return self._composed(value["$call"], caller, tools, depth)
            return self.handles.find(caller, value)

        coercer = Coercer(module.split(".")[0], find)
        instance = None
        if tool.get("init_property"):
            given = arguments.pop(tool["init_property"], None)
            found = find(given)
            if found is not given and found is not None:
                instance = found
            else:
                cls = resolve(tool["qualname"].rpartition(".")[0])
                instance = invoke.call(cls, tool.get("constructor", []), given or {}, coercer, module)
        function = invoke.target(tool, instance)
        return invoke.call(function, tool.get("parameters", []), arguments, coercer, module, render.settle)

    def _composed(self, inner: Any, caller: str, tools: dict[str, Any], depth: int) -> Any:
        """An argument that is another tool's result: ``{"$call": {"tool": …, "arguments": …}}``."""
        if not isinstance(inner, dict) or depth >= _COMPOSED_DEPTH:
            raise BadArgument('\'$call\' takes {"tool": name, "arguments": {…}}, four deep at most')
        name = inner.get("tool") or inner.get("callable") or ""
        tool = tools.get(name)
        if tool is None or tool["kind"] == "cli":
            raise BadArgument(f"'$call' names no tool of this service: '{name}'")
        arguments = dict(inner.get("arguments") or {})
        if tool.get("init_property") and "init" in inner:
            arguments[tool["init_property"]] = inner["init"]
        return self._invoke(tool, arguments, caller, tools, depth + 1)


def _type_name(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _command_answer(ran: dict[str, Any]) -> dict[str, Any]:
    """A script's answer: an exit code other than 0 with output is one, too (diff, grep, linters)."""
    code = ran["exit_code"]
    said = ran["stderr"].strip()
    answer: dict[str, Any] = {"value": ran["stdout"], "type": "cli", "exit_code": code}
    if ran["files"]:
        answer["files"] = ran["files"]
    if ran["hung"]:
        return {"ok": False, "error": {"kind": "timeout", "message": "It ran past its time."}, "log": said}
    if code == 0 or (code > 0 and ran["stdout"].strip() and "Traceback (most recent call last)" not in said):
        if said:
            answer["log"] = said[: contain.LOG_LIMIT]
        return {"ok": True, **answer}
    lines = said.splitlines()
    message = said if len(lines) <= 12 else "\n".join(["…", *lines[-12:]])
    problem = f"It ended with exit code {code}."
    return {
        "ok": False,
        "error": {"kind": "exit", "message": f"{problem} {message}".strip(), "exit_code": code},
        "log": ran["stdout"][: contain.LOG_LIMIT],
    }


def _failed(
    kind: str, message: str, printed: contain.Capture, error: BaseException | None = None
) -> dict[str, Any]:
    problem: dict[str, Any] = {"kind": kind, "message": message}
    if error is not None:
        problem["where"] = contain.where(error)
        problem["type"] = type(error).__name__
    answer: dict[str, Any] = {"ok": False, "error": problem}
    text = printed.text()
    if text:
        answer["log"] = text
    return answer


@contextlib.contextmanager
def _address_space(memory_mb: int | None) -> Iterator[None]:
    """The limit of one call, below that of the process; inherited by what the call starts."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = memory_mb << 20 if memory_mb else before
    if wanted == before or (hard != resource.RLIM_INFINITY and wanted > hard) or sys.platform == "darwin":
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def _usage() -> tuple[float, int]:
    """CPU seconds so far, and the peak of resident memory in KiB, children included."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    scale = 1024 if sys.platform == "darwin" else 1
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu, max(own.ru_maxrss, children.ru_maxrss) // scale


def run() -> None:
    """Serve until stdin ends. The first argument is the worker's number."""
    wire_in = os.fdopen(os.dup(0), "rb")
    wire_out = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what C code prints goes where complaints go, never into the protocol
    os.close(nothing)
    os.set_inheritable(wire_in.fileno(), False)
    os.set_inheritable(wire_out.fileno(), False)
    worker = Worker(sys.argv[1] if len(sys.argv) > 1 else "0")
    del sys.argv[1:]  # what is imported here is to see a program without arguments
    for line in wire_in:
        request = json.loads(line)
        answer = worker.answer(request)
        answer["id"] = request["id"]
        wire_out.write(json.dumps(answer, default=contain.plain).encode("utf-8", "surrogatepass") + b"\n")
        wire_out.flush()
