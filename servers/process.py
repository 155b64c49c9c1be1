"""A worker process in its sandbox: started, asked, and ended for certain."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from servers.errors import WorkerFailed
from servers.manifest.records import Limits, Permissions
from servers.sandbox.cgroup import Cgroup
from servers.sandbox.policy import Policy, clean_environment

WORKER: Final = Path(__file__).with_name("worker")
STDERR_LINES: Final = 40
MAX_ANSWER: Final = 64 << 20
_decode: Final = msgspec.json.Decoder().decode


class WorkerHung(WorkerFailed):
    """The worker did not answer in time; it was ended, and with it the work."""

    kind = "worker_hung"


class WorkerDied(WorkerFailed):
    """The worker ended while it had a question to answer."""

    kind = "worker_died"


class OutOfMemory(WorkerDied):
    """The kernel ended the worker because a call used more memory than it may."""

    kind = "out_of_memory"


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a service's workers run.

    :ivar environment: the virtual environment's directory.
    """

    environment: Path
    level: str
    permissions: Permissions = field(default_factory=Permissions)
    limits: Limits = field(default_factory=Limits)

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.environment / "bin" / "python"


class WorkerProcess:
    """One worker. Blocking; ``kill`` may be called from another thread and makes ``ask`` fail at once."""

    def __init__(self, place: Place, number: str = "0") -> None:
        self._place = place
        self._number = number
        self._child: subprocess.Popen[bytes] | None = None
        self._scratch = ""
        self._buffer = bytearray()
        self._ids = 0
        self._said: deque[str] = deque(maxlen=STDERR_LINES)
        self._group: Cgroup | None = None
        self._killed = False

    def __enter__(self) -> WorkerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs, and has not been told to end."""
        return self._child is not None and not self._killed and self._child.poll() is None

    @property
    def scratch(self) -> str:
        """The directory that is the worker's own, its working directory and its home."""
        return self._scratch

    def start(self) -> None:
        """Start the process; it is ready when it first answers.

        :raises WorkerFailed: its interpreter cannot be executed.
        """
        place = self._place
        self._scratch = tempfile.mkdtemp(prefix="toolyard-")
        policy = Policy(
            level=place.level,
            read=(str(place.environment), str(WORKER), *place.permissions.read),
            write=(self._scratch, *place.permissions.write),
            network=place.permissions.network,
            memory_mb=place.limits.memory_mb,
            processes=place.limits.processes,
            file_mb=place.limits.file_mb,
        )
        self._group = Cgroup.make(place.limits.processes)
        argv = [str(place.python), "-I", "-X", "utf8", str(WORKER), self._number]
        try:
            self._child = subprocess.Popen(
                policy.command(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._scratch,
                env=clean_environment(self._scratch, str(place.python.parent), place.permissions.env),
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._leave_group()
            raise WorkerFailed(
                f"Cannot start a worker in '{place.environment}': {error.strerror or error}.",
                "Build the environment again with `toolyard warm`.",
            ) from None
        if self._group is not None and not self._group.enter(self._child.pid):
            self._leave_group()
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        os.set_blocking(self._child.stderr.fileno(), False)

    def call(self, request: dict[str, Any], timeout: float, memory_mb: int) -> dict[str, Any]:
        """Have a tool called. The answer's ``usage`` says what the call took: ``wall_ms``, ``cpu_ms``, ``peak_kb``.

        :param memory_mb: what the call may use; address space everywhere, and real memory where groups can be made.
        :raises WorkerHung, WorkerDied: `OutOfMemory` where it was killed for want of memory.
        """
        child, group = self._child, self._group
        killed = group.killed() if group is not None else 0
        if group is not None:
            group.begin(memory_mb << 20)
        elif child is not None:
            _forget_peak(child.pid)
        try:
            answer = self.ask("call", timeout, memory_mb=memory_mb, **request)
        except WorkerDied:
            if group is not None and group.killed() > killed:
                raise OutOfMemory(
                    f"The call needed more than its {memory_mb} MiB of memory, and was ended with its worker."
                ) from None
            raise
        usage = answer.get("usage")
        if usage is not None and child is not None:
            peak = group.peak() if group is not None else _peak_of(child.pid)
            if peak is not None:
                usage["peak_kb"] = peak >> 10
        if group is not None and group.killed() > killed and not answer.get("ok"):
            answer["error"] = {
                "kind": "memory",
                "message": f"What it started needed more than {memory_mb} MiB of memory.",
            }
        return answer

    def ask(self, operation: str, timeout: float, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        :param timeout: seconds; when they are over the worker is killed with everything it started.
        :raises WorkerHung, WorkerDied: with the worker's last words.
        """
        child = self._child
        if child is None or child.stdin is None:
            raise WorkerDied("The worker is not running.", "Call again.")
        self._ids += 1
        line = json.dumps({"op": operation, "id": self._ids, **fields}, ensure_ascii=False)
        deadline = time.monotonic() + timeout
        try:
            child.stdin.write(line.encode("utf-8", "surrogatepass") + b"\n")
            child.stdin.flush()
        except (OSError, ValueError):
            raise self._dead() from None
        while True:
            found = self._read_line(deadline)
            if found is None:
                self.kill()
                raise WorkerHung(
                    f"No answer within {timeout:g} s; the work was stopped.",
                    "Ask for less, or raise the limit.",
                )
            answer = _decode(found)
            if answer.get("id") == self._ids:
                return dict(answer)

    def _read_line(self, deadline: float) -> bytes | None:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        assert child.stderr is not None
        out, err = child.stdout.fileno(), child.stderr.fileno()
        start = 0
        watched = [out, err]
        while True:
            end = self._buffer.find(b"\n", start)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return line
            start = len(self._buffer)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            ready, _, _ = select.select(watched, [], [], left)
            if err in ready and not self._listen(err):
                watched.remove(err)
            if out in ready:
                try:
                    data = os.read(out, 1 << 20)
                except BlockingIOError:
                    continue
                if not data:
                    raise self._dead()
                self._buffer += data
                if len(self._buffer) > MAX_ANSWER:
                    self.kill()
                    raise WorkerDied(
                        f"The answer is longer than {MAX_ANSWER >> 20} MiB; the worker was ended.",
                        "Ask for less.",
                    )

    def _listen(self, err: int) -> bool:
        try:
            data = os.read(err, 1 << 16)
        except (BlockingIOError, OSError):
            return True
        self._said.extend(data.decode("utf-8", "replace").splitlines())
        return bool(data)

    def said(self) -> str:
        """The worker's last words on stderr."""
        child = self._child
        if child is not None and child.stderr is not None and not child.stderr.closed:
            self._listen(child.stderr.fileno())
        return "\n".join(self._said)

    def _dead(self) -> WorkerDied:
        child = self._child
        assert child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)
        code = child.returncode
        if self._place.level == "L3" and code is not None and code > 128:
            code = 128 - code  # bubblewrap tells a signal as a shell does
        self.kill()
        if self._killed and code in (None, -signal.SIGKILL):
            how = "was stopped"
        elif code is not None and code < 0:
            how = f"was ended by signal {-code} ({signal.Signals(-code).name})"
        else:
            how = f"exited with code {code}"
        words = self.said().strip().splitlines()
        last = f" Its last words: {words[-1][:300]}" if words else ""
        return WorkerDied(f"The worker {how}.{last}", "The next call starts a new one; its handles are gone.")

    def kill(self) -> None:
        """End the process and everything it started. It cannot leave its group: the sandbox forbids it."""
        child = self._child
        if child is None:
            return
        self._killed = True
        for _ in range(20):  # a fork bomb may outrun one signal
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                break
            if child.poll() is not None:
                time.sleep(0.002)

    def close(self) -> None:
        """Let it leave, then end it; remove its scratch directory."""
        child = self._child
        if child is None:
            return
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        self._child = None
        self._leave_group()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _leave_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.remove()


def _forget_peak(pid: int) -> None:
    """Have the kernel measure a process's peak of resident memory from now on (proc(5), clear_refs)."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def _peak_of(pid: int) -> int | None:
    """The most resident memory of one process, in bytes; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) << 10
    return None
