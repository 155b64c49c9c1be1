"""The tables of the store, as SQLAlchemy Core sees them; `migrations/` builds them in a database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

REVISIONS: Final = ("0001",)
"""Every migration, oldest first. Kept here so that opening a current database need not import
alembic, which costs 0.3 s of CPU; a test holds it equal to alembic's own chain."""

HEAD: Final = REVISIONS[-1]

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
