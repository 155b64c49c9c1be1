"""A Postgres server of the tests' own: a new cluster in a folder, on a Unix socket, ended with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`, where Postgres is installed."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


class PostgresServer:
    """A cluster that can be stopped and started again."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self._tools = tools
        self._count = 0

    def run(self, program: str, *arguments: str) -> None:
        """Run one of Postgres's programs. Its server refuses to run as root: then as another user."""
        user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        subprocess.run(
            [self._tools / program, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
            cwd="/",
            **user,
        )

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        data = str(self.folder / "data")
        self.run("pg_ctl", "-D", data, "-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._count += 1
        name = f"t{self._count}"
        self.run("createdb", "-h", str(self.folder), "-U", "toolyard", name)
        return f"postgresql://toolyard@/{name}?host={self.folder}"


@contextmanager
def postgres() -> Iterator[PostgresServer | None]:
    """A running server, or None where Postgres is not installed."""
    tools = programs()
    if tools is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="toolyard-pg-") as name:
        folder = Path(name)
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = PostgresServer(folder, tools)
        # One collation everywhere, and no locale that the machine may lack.
        server.run(
            "initdb",
            "-D",
            str(folder / "data"),
            "-U",
            "toolyard",
            "-A",
            "trust",
            "-N",
            "--locale=C",
            "-E",
            "UTF8",
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
