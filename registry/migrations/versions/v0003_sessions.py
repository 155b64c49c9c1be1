"""The key ring, what sessions asked for, and the event log. The keys of the HMACs before are dropped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "seal_keys",
        sa.Column("ident", sa.LargeBinary(), primary_key=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("ident", sa.String(32), primary_key=True),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("ended", sa.Integer(), nullable=False),
        sa.Column("log_level", sa.Integer(), nullable=False),
        sa.Column("subscriptions", sa.Text(), nullable=False),
        sa.Column("private", sa.Text(), nullable=False),
    )
    op.create_index("ix_sessions_expires", "sessions", ["expires"])
    op.create_table(
        "streams",
        sa.Column("ident", sa.String(512), primary_key=True),
        sa.Column("session", sa.String(32), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
    )
    op.create_index("ix_streams_expires", "streams", ["expires"])
    op.create_table(
        "stream_events",
        sa.Column(
            "stream", sa.String(512), sa.ForeignKey("streams.ident", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.execute("DELETE FROM keys WHERE name IN ('session', 'handles')")
