"""Schema changes that do not block writers on PostgreSQL. Their migrations need `atomic = False`.

PostgreSQL builds an index CONCURRENTLY while rows are written, but only outside of a transaction. Other databases take
the usual way. Reference: https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
"""

from __future__ import annotations

from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def _is_online(editor: BaseDatabaseSchemaEditor) -> bool:
    return editor.connection.vendor == "postgresql"


def _drop(editor: BaseDatabaseSchemaEditor, name: str) -> None:
    editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {editor.quote_name(name)}")


def _create(editor: BaseDatabaseSchemaEditor, statement: Any, name: str) -> None:
    _drop(editor, name)  # one that an interrupted attempt has left is invalid
    editor.execute(str(statement).replace(" INDEX ", " INDEX CONCURRENTLY ", 1), params=None)


class AddIndex(migrations.AddIndex):
    """`migrations.AddIndex`."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_forwards(app_label, schema_editor, from_state, to_state)
        model = to_state.apps.get_model(app_label, self.model_name)
        _create(schema_editor, self.index.create_sql(model, schema_editor), self.index.name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_backwards(app_label, schema_editor, from_state, to_state)
        _drop(schema_editor, self.index.name)


class RemoveIndex(migrations.RemoveIndex):
    """`migrations.RemoveIndex`."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_forwards(app_label, schema_editor, from_state, to_state)
        _drop(schema_editor, str(self.name))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_backwards(app_label, schema_editor, from_state, to_state)
        model = to_state.apps.get_model(app_label, self.model_name)
        index = to_state.models[app_label, self.model_name_lower].get_index_by_name(self.name)
        _create(schema_editor, index.create_sql(model, schema_editor), index.name)


class AddUniqueConstraint(migrations.AddConstraint):
    """`migrations.AddConstraint` for a UniqueConstraint with a condition, which is a unique index."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_forwards(app_label, schema_editor, from_state, to_state)
        model = to_state.apps.get_model(app_label, self.model_name)
        _create(schema_editor, self.constraint.create_sql(model, schema_editor), self.constraint.name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_backwards(app_label, schema_editor, from_state, to_state)
        _drop(schema_editor, self.constraint.name)


class RemoveUniqueConstraint(migrations.RemoveConstraint):
    """`migrations.RemoveConstraint` for a UniqueConstraint with a condition."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_forwards(app_label, schema_editor, from_state, to_state)
        _drop(schema_editor, self.name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not _is_online(schema_editor):
            return super().database_backwards(app_label, schema_editor, from_state, to_state)
        model = to_state.apps.get_model(app_label, self.model_name)
        constraint = to_state.models[app_label, self.model_name_lower].get_constraint_by_name(self.name)
        _create(schema_editor, constraint.create_sql(model, schema_editor), self.name)
