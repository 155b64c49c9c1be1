"""The tables of the store, as SQLAlchemy Core sees them; `migrations/` builds them in a database."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy import Text as _Text

REVISIONS: Final = ("0001", "0002", "0003", "0005", "0006", "0007", "0008")
"""Every migration, oldest first. Kept here so that opening a current database need not import
alembic, which costs 0.3 s of CPU; a test holds it equal to alembic's own chain."""

HEAD: Final = REVISIONS[-1]


class Text(TypeDecorator[str]):
    """Text of any characters. A name may hold U+0000, which Postgres cannot store: there it is escaped."""

    impl = _Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\\", "\\\\").replace("\0", "\\0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql" or "\\" not in value:
            return value
        return re.sub(r"\\(.)", lambda found: "\0" if found[1] == "0" else found[1], value)


metadata = MetaData()

alembic_version = Table(
    "alembic_version",
    MetaData(),  # alembic's own table, spelled as alembic spells it, and kept out of what it compares
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

servers = Table(
    "servers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("spec", Text, nullable=False),  # JSON, ASCII: any string of Python's comes back the same
)

catalogs = Table(
    "catalogs",
    metadata,
    Column("server", Text, ForeignKey("servers.name", ondelete="CASCADE"), primary_key=True),
    Column("era", String(16), nullable=False),
    Column("protocol_version", String(32), nullable=False),
    Column("server_info", LargeBinary, nullable=False),
    Column("capabilities", LargeBinary, nullable=False),
    Column("instructions", Text),  # a JSON string, ASCII, for the same reason
    Column("synced_at", Double, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("server", Text, ForeignKey("catalogs.server", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),  # the bytes the server sent
)

approvals = Table(
    "approvals",
    metadata,
    # Two servers may start the same command; each was approved, and is revoked, by itself.
    Column("key", String(128), primary_key=True),
    Column("server", Text, ForeignKey("servers.name", ondelete="CASCADE"), primary_key=True, index=True),
    Column("detail", Text, nullable=False),
    Column("approved_at", Double, nullable=False),
)

# No foreign key: a name outlives its server, so that the server finds its names when it comes back.
names = Table(
    "names",
    metadata,
    Column("policy", String(32), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("server", Text, primary_key=True),
    Column("original", Text, primary_key=True),
    Column("exposed", Text, nullable=False),
    UniqueConstraint("policy", "kind", "exposed", name="uq_names_exposed"),
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)

# Every version a tool ever had. No foreign key: history outlives the server.
tool_versions = Table(
    "tool_versions",
    metadata,
    Column("server", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("hash", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),  # the bytes the server sent
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
)

# What each server offers now.
tools = Table(
    "tools",
    metadata,
    Column("server", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("hash", String(64), nullable=False),
)

# The version of a tool that a person, or trust on first use, approved. It outlives the tool.
tool_pins = Table(
    "tool_pins",
    metadata,
    Column("server", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("approved_at", Double, nullable=False),
    Column("approved_by", Text, nullable=False),
)

# A tool that a person or the detector withholds, whatever its pin, until a person approves it.
tool_holds = Table(
    "tool_holds",
    metadata,
    Column("server", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("hash", String(64), nullable=False),  # the version it was about
    Column("reason", String(16), nullable=False),
    Column("detail", Text, nullable=False),  # a JSON string, ASCII: it quotes what a server wrote
    Column("since", Double, nullable=False),
)

# Calls as they were made, the oldest deleted beyond a number. A row is a group of them: written
# together, they cost a tenth of what rows of their own would.
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # JSON, an array for each call
)

# The versions of what a server offers as a whole: a row whenever anything of it changed.
profiles = Table(
    "profiles",
    metadata,
    Column("server", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("tools", Integer, nullable=False),
    Column("server_version", Text, nullable=False),  # a JSON string, ASCII
    Column("at", Double, nullable=False),
)

vectors = Table(
    "vectors",
    metadata,
    Column("server", Text, primary_key=True),  # a tool's text names its server
    Column("hash", String(64), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("dimension", Integer, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float32, little endian
)

tool_statistics = Table(
    "tool_statistics",
    metadata,
    Column("server", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("request", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("name", Text, nullable=False),
)

adapters = Table(
    "adapters",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("report", Text, nullable=False),
    Column("kept", Integer, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

toolsets = Table(
    "toolsets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("body", Text, nullable=False),  # JSON, as `registry.toolsets.read` takes it
)

# Calls that go on after their client was given a handle.
tasks = Table(
    "tasks",
    metadata,
    Column("ident", String(64), primary_key=True),
    Column("server", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("message", Text),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),  # JSON; what it means depends on the status
    Column("owner", String(64), nullable=False, server_default=""),  # the gateway that has its call
    Column("revision", BigInteger, nullable=False, server_default="0"),  # the counter when it was written
)

# What came for a task at a gateway that does not have its call: its owner takes it from here.
task_messages = Table(
    "task_messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task", String(64), ForeignKey("tasks.ident", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# The gateways on this store, and when each was last heard of, by the database's clock.
replicas = Table(
    "replicas",
    metadata,
    Column("ident", String(64), primary_key=True),
    Column("seen_at", Double, nullable=False),
)

# The key ring: the newest seals, the others open what they sealed.
seal_keys = Table(
    "seal_keys",
    metadata,
    Column("ident", LargeBinary, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)

# What a session asked for, or that it was ended. Who it is stands in its sealed id.
sessions = Table(
    "sessions",
    metadata,
    Column("ident", String(32), primary_key=True),
    Column("expires", Double, nullable=False, index=True),
    Column("ended", Integer, nullable=False),
    Column("log_level", Integer, nullable=False),
    Column("subscriptions", Text, nullable=False),  # a JSON array
    Column("private", Text, nullable=False),  # a JSON array: servers that keep state for it alone
)

# Event streams whose reader is away, with what waits for it.
streams = Table(
    "streams",
    metadata,
    Column("ident", String(512), primary_key=True),
    Column("session", String(32), nullable=False),
    Column("expires", Double, nullable=False, index=True),
    Column("done", Integer, nullable=False),
)

stream_events = Table(
    "stream_events",
    metadata,
    Column("stream", String(512), ForeignKey("streams.ident", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
