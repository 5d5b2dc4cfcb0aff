"""New events of webhooks. A receiver gets each event of a run at most once, not only one event.

The index of the constraint is built without blocking writers on PostgreSQL.
"""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


EVENTS = [
    ("run.completed", "a run ended with exit code 0"),
    ("run.terminated", "a run ended in any other way"),
    ("run.never_started", "a run was requested and its command was never executed"),
    ("run.silent", "a run has had no output for a time, or its log has passed a size"),
    ("run.restarted", "a run was started again, or could not be"),
    ("operation.failed", "an operation failed, or its outcome is unknown"),
]


class Migration(migrations.Migration):
    is_safe = {"webhookdelivery_one_delivery_per_webhook_run_event": "0.3.0 keeps to one message per webhook and run, which is stricter."}

    dependencies = [("runners", "0026_options_and_previous_run")]

    operations = [
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.UniqueConstraint(
                fields=["webhook", "run", "event"],
                condition=Q(run__isnull=False),
                name="one_delivery_per_webhook_run_event",
            ),
        ),
        migrations.RemoveConstraint(model_name="webhookdelivery", name="one_delivery_per_webhook_and_run"),
        migrations.AlterField(
            model_name="webhookdelivery", name="event", field=models.CharField(choices=EVENTS, max_length=32)
        ),
    ]
