from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """The indexes of the marks of runs; and a receiver gets each silence of a run, not only the first one."""

    is_safe = {"webhookdelivery_one_delivery_unless_silent": "0.3.0 keeps to one message per webhook and run, which is stricter."}

    dependencies = [
        ("runners", "0028_output_and_progress"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(condition=Q(silent_since__isnull=False), fields=["-id"], name="run_silent"),
        ),
        migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(condition=Q(log_too_large=True), fields=["-id"], name="run_log_too_large"),
        ),
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.UniqueConstraint(
                condition=Q(run__isnull=False) & ~Q(event="run.silent"),
                fields=["webhook", "run", "event"],
                name="one_delivery_unless_silent",
            ),
        ),
        migrations.RemoveConstraint(
            model_name="webhookdelivery", name="one_delivery_per_webhook_run_event"
        ),
    ]
