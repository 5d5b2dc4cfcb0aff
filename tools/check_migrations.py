"""Reject migrations that an older server, or writers of a large table, do not survive: part of `tools/lint migrations`.

During an upgrade servers of the last release work on the new schema. So a migration that is not released yet may only
add. It must have a way back, too. What blocks writers of a table is judged by django-pg-zero-downtime-migrations.

A migration that is safe for a reason that this program cannot see says so, by operation (the name is in the message):

    class Migration(migrations.Migration):
        is_safe = {"remove_operation_attempts": "0.9.0, the last release, does not use the column any more."}
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import django
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django_zero_downtime_migrations.backends.postgres.schema import UnsafeOperationException

from runners_project.postgresql.base import DatabaseWrapper
from runners_project.postgresql.schema import DatabaseSchemaEditor

# The newest migrations of the last release (docs/development.md, "Commit and release"). They never change.
RELEASED = {"profiles": "0006_person_of_accounts", "runners": "0020_seen_database"}
GONE = (
    "servers of the last release still use it. Remove it from the code first, and from the database one release later"
)
RENAMED = "servers of the last release use the old name. Add the new one, and remove the old one a release later"
SAME_DATABASE = (migrations.AlterModelOptions, migrations.AlterModelManagers)


class Judge(DatabaseSchemaEditor):
    """An editor that executes nothing and raises UnsafeOperationException for what blocks writers."""

    def __init__(self) -> None:
        nowhere = {**connection.settings_dict, "NAME": "none", "HOST": "127.0.0.1", "PORT": "1", "OPTIONS": {}}
        super().__init__(DatabaseWrapper(nowhere, DEFAULT_DB_ALIAS))
        self.deferred_sql: list[Any] = []
        self.RAISE_FOR_UNSAFE = True

    def execute(self, sql: Any, params: Any = ()) -> None:
        pass


def problems_of(migration: migrations.Migration, state: ProjectState) -> Iterator[str]:
    """Yield what is wrong. `state`: the models before the migration; afterwards, those after it."""
    reasons = dict(getattr(migration, "is_safe", {}))
    new: set[str] = set()  # tables that this migration creates: nobody uses them yet
    for operation in migration.operations:
        before = state.clone()
        operation.state_forwards(migration.app_label, state)
        if isinstance(operation, migrations.CreateModel):
            new.add(operation.name_lower)
        if getattr(operation, "model_name_lower", "") in new:
            continue
        name = operation.migration_name_fragment or type(operation).__name__
        problem = problem_of(operation, migration.app_label, before, state)
        if problem and not reasons.pop(name, ""):
            yield f"{migration}, {name}: {problem}."
    for name in reasons:
        yield f"{migration}: is_safe names {name}, which needs no reason."


def problem_of(operation: Operation, app: str, before: ProjectState, after: ProjectState) -> str:
    """Return why an operation on tables in use is not safe, or an empty string."""
    if isinstance(operation, migrations.SeparateDatabaseAndState):
        found = (problem_of(each, app, before, after) for each in operation.database_operations)
        return next(filter(None, found), "")
    if isinstance(operation, migrations.RemoveField | migrations.DeleteModel):
        return GONE
    if isinstance(operation, migrations.RenameField | migrations.RenameModel | migrations.AlterModelTable):
        return RENAMED
    if isinstance(operation, migrations.RunPython | migrations.RunSQL):
        if not operation.reversible:
            return "it has no way back: give it a reverse"
        return (
            "it may lock many rows at once. Say how it works in batches (RunPython with atomic=False), or how few rows"
        )
    if isinstance(operation, migrations.AddConstraint | migrations.AlterUniqueTogether):
        return "servers of the last release may write rows that violate it"
    if isinstance(operation, migrations.AddField | migrations.AlterField):
        return problem_of_field(operation, app, before, after)
    return problem_of_locks(operation, app, before, after)


def problem_of_field(
    operation: migrations.AddField | migrations.AlterField, app: str, before: ProjectState, after: ProjectState
) -> str:
    new = after.apps.get_model(app, operation.model_name)._meta.get_field(operation.name)
    if isinstance(new, models.ManyToManyField):
        return ""
    assert isinstance(new, models.Field)
    if isinstance(operation, migrations.AddField):
        if not new.null and not new.has_db_default():
            return "servers of the last release insert rows without it: it needs null=True or a db_default"
        if new.unique:
            return "servers of the last release insert rows without it, which are not unique"
    else:
        old = before.apps.get_model(app, operation.model_name)._meta.get_field(operation.name)
        assert isinstance(old, models.Field)
        if old.null and not new.null:
            return "servers of the last release may insert null"
        if new.unique and not old.unique:
            return "servers of the last release may insert values that are not unique"
        if old.has_db_default() and not new.has_db_default() and not new.null:
            return "servers of the last release may insert rows without it: it needs its db_default"
    return problem_of_locks(operation, app, before, after)


def problem_of_locks(operation: Operation, app: str, before: ProjectState, after: ProjectState) -> str:
    if isinstance(operation, SAME_DATABASE):
        return ""
    try:
        operation.database_forwards(app, Judge(), before, after)
    except UnsafeOperationException as error:
        return f"it blocks writers: {' '.join(str(error).split())}"
    except DatabaseError:
        return "it cannot be judged without a database: measure it with `python -m bench.migrations`"
    return ""


def unreleased(loader: MigrationLoader) -> Iterator[tuple[migrations.Migration, ProjectState]]:
    """Yield each migration after RELEASED, in order, and the models before it."""
    for app, name in RELEASED.items():
        released = set(loader.graph.forwards_plan((app, name)))
        for leaf in loader.graph.leaf_nodes(app):
            for key in loader.graph.forwards_plan(leaf):
                if key[0] == app and key not in released:
                    yield loader.graph.nodes[key], loader.project_state(key, at_end=False)


def main() -> int:
    django.setup()
    found = [
        problem for migration, state in unreleased(MigrationLoader(None)) for problem in problems_of(migration, state)
    ]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
