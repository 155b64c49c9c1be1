"""Alembic's environment: runs the steps on the connection that `registry.store` hands over."""

from __future__ import annotations

from alembic import context

from registry.schema import metadata

# The store has begun the transaction and commits it, so a step that fails or is killed leaves the
# schema as it was. SQLite can do that (DDL is transactional there); alembic assumes it cannot.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
