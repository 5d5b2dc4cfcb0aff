"""`tools/lint migrations` rejects what an older server, or writers of a large table, would not survive."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from tools import check_migrations

TEXT = models.CharField(max_length=10)
TABLE = migrations.CreateModel("Row", [("id", models.BigAutoField(primary_key=True)), ("name", TEXT)])


def nothing(apps: Any, editor: Any) -> None: ...


def found(*operations: Operation, reasons: dict[str, str] | None = None, is_new: bool = False) -> str:
    """Return the problems of a migration of the table Row; `is_new`: the migration also creates the table."""
    state = ProjectState()
    steps = [TABLE, *operations] if is_new else list(operations)
    if not is_new:
        TABLE.state_forwards("app", state)
    kind = type("Migration", (migrations.Migration,), {"operations": steps, "is_safe": reasons or {}})
    return "\n".join(check_migrations.problems_of(kind("0002_next", "app"), state))


def column(**options: Any) -> migrations.AddField:
    return migrations.AddField("row", "other", models.CharField(max_length=10, **options))


def changed(field: models.Field[Any, Any]) -> migrations.AlterField:
    return migrations.AlterField("row", "name", field)


@pytest.mark.parametrize(
    ("operation", "problem"),
    [
        (migrations.RemoveField("row", "name"), "still use it"),
        (migrations.DeleteModel("Row"), "still use it"),
        (migrations.RenameField("row", "name", "title"), "use the old name"),
        (migrations.RenameModel("Row", "Line"), "use the old name"),
        (migrations.AlterModelTable("row", "lines"), "use the old name"),
        (column(default=""), "it needs null=True or a db_default"),
        (column(db_default="", unique=True), "not unique"),
        (changed(models.CharField(max_length=10, unique=True)), "not unique"),
        (changed(models.CharField(max_length=5)), "it blocks writers: ALTER COLUMN TYPE"),
        (changed(models.BigIntegerField()), "it blocks writers: ALTER COLUMN TYPE"),
        (migrations.RunPython(nothing), "no way back"),
        (migrations.RunSQL("SELECT 1"), "no way back"),
        (migrations.RunPython(nothing, nothing), "works in batches"),
        (
            migrations.AddConstraint("row", models.UniqueConstraint(fields=["name"], name="one_name")),
            "may write rows that violate it",
        ),
        (migrations.AlterUniqueTogether("row", {("name",)}), "may write rows that violate it"),
        (
            migrations.SeparateDatabaseAndState(database_operations=[migrations.RemoveField("row", "name")]),
            "still use it",
        ),
    ],
)
def test_what_is_not_safe_is_rejected(operation: Operation, problem: str) -> None:
    assert problem in found(operation)


def test_a_column_that_stops_to_be_null_or_to_have_a_default_is_rejected() -> None:
    optional = models.CharField(max_length=10, null=True)
    assert "may insert null" in found(migrations.AddField("row", "other", optional), alter_other(TEXT))
    assert "it needs its db_default" in found(column(db_default=""), alter_other(TEXT))


def alter_other(field: models.Field[Any, Any]) -> migrations.AlterField:
    return migrations.AlterField("row", "other", field)


@pytest.mark.parametrize(
    "operation",
    [
        column(null=True),
        column(db_default=""),
        column(db_default="", db_index=True),
        changed(models.CharField(max_length=20)),
        changed(models.CharField(max_length=10, help_text="A new text.")),
        changed(models.TextField()),
        migrations.AddIndex("row", models.Index(fields=["name"], name="row_name")),
        migrations.AlterModelOptions("row", {"ordering": ["name"]}),
        migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("row", "name")]),
        migrations.CreateModel("Other", [("id", models.BigAutoField(primary_key=True))]),
    ],
)
def test_what_only_adds_is_accepted(operation: Operation) -> None:
    assert found(operation) == ""


def test_a_table_that_the_migration_creates_is_in_use_by_nobody() -> None:
    assert found(column(), migrations.RemoveField("row", "name"), is_new=True) == ""


def test_a_reason_accepts_an_operation_and_an_unused_reason_is_rejected() -> None:
    removal = migrations.RemoveField("row", "name")
    assert found(removal, reasons={"remove_row_name": "No release has used it."}) == ""
    assert "is_safe names remove_row_title" in found(removal, reasons={"remove_row_title": "No."})


def test_the_released_migrations_exist_and_the_newer_ones_are_safe() -> None:
    newer = list(check_migrations.unreleased(MigrationLoader(None)))
    assert newer
    assert [problem for each, state in newer for problem in check_migrations.problems_of(each, state)] == []
