"""Servers, catalogs and their items, approvals, assigned names, keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "servers",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
    )
    op.create_table(
        "catalogs",
        sa.Column("server", sa.Text(), sa.ForeignKey("servers.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("era", sa.String(16), nullable=False),
        sa.Column("protocol_version", sa.String(32), nullable=False),
        sa.Column("server_info", sa.LargeBinary(), nullable=False),
        sa.Column("capabilities", sa.LargeBinary(), nullable=False),
        sa.Column("instructions", sa.Text()),
        sa.Column("synced_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "items",
        sa.Column(
            "server", sa.Text(), sa.ForeignKey("catalogs.server", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "approvals",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("server", sa.Text(), sa.ForeignKey("servers.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("approved_at", sa.Double(), nullable=False),
    )
    op.create_index("ix_approvals_server", "approvals", ["server"])
    op.create_table(
        "names",
        sa.Column("policy", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("server", sa.Text(), primary_key=True),
        sa.Column("original", sa.Text(), primary_key=True),
        sa.Column("exposed", sa.Text(), nullable=False),
        sa.UniqueConstraint("policy", "kind", "exposed", name="uq_names_exposed"),
    )
    op.create_table(
        "keys",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
