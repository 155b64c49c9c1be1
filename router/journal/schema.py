"""The journal's tables, as SQLAlchemy Core sees them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION: Final = 1
"""Of the tables below; a journal with another one is not touched."""

metadata = MetaData()

version = Table("journal_version", metadata, Column("version", Integer, primary_key=True))

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("request", LargeBinary, nullable=False),  # JSON, as every LargeBinary here
    Column("plan", LargeBinary, nullable=False),
    Column("options", LargeBinary, nullable=False),
    Column("status", String(20), nullable=False, index=True),
    Column("reason", LargeBinary, nullable=False),
    Column("revision", Integer, nullable=False),  # how often the plan was made anew
    Column("created_at", Double, nullable=False, index=True),
    Column("updated_at", Double, nullable=False),
    Column("ended_at", Double),
    # Who runs it. The epoch is a fencing token: it grows with every change of owner, and what an
    # earlier owner still wants to write is refused.
    Column("owner", String(64)),
    Column("epoch", Integer, nullable=False),
    Column("lease", Double, nullable=False),  # until when the owner is believed to live
)

steps = Table(
    "steps",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("step", Text, primary_key=True),
    Column("state", LargeBinary, nullable=False),
    Column("status", String(20), nullable=False),
    # A person's word, written by whoever hears it and not only by the owner of the run.
    Column("decision", LargeBinary),
)

events = Table(
    "events",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("handle", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# Plans that worked, by shape: no value of anybody's is in them.
shapes = Table(
    "plan_shapes",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("uses", BigInteger, nullable=False),
    Column("last_used", Double, nullable=False),
    Column("name", Text),
    Index("uq_plan_shapes_name", "name", unique=True),
)
