"""Gateways that share a store: which of them lives, whose a task is, and what others have to say of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("ident", sa.String(64), primary_key=True),
        sa.Column("seen_at", sa.Double(), nullable=False),
    )
    op.add_column("tasks", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.add_column("tasks", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "task_messages",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("task", sa.String(64), sa.ForeignKey("tasks.ident", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
