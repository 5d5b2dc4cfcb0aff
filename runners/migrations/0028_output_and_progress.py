from django.db import migrations, models


class Migration(migrations.Migration):
    """Columns that may be null or have a default: PostgreSQL adds them without writing the table."""

    dependencies = [
        ("runners", "0027_events_of_webhooks"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerrun",
            name="log_size",
            field=models.BigIntegerField(blank=True, editable=False, help_text="Bytes, at the last probe.", null=True),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="last_output_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="When it last printed something. Null: not known, or never.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="silent_since",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="Set while it runs and prints nothing for longer than its profile allows: its last output.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="log_too_large",
            field=models.BooleanField(
                db_default=False,
                default=False,
                editable=False,
                help_text="Its log has passed RUNNERS_LOG_SIZE_LIMIT.",
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="progress",
            field=models.JSONField(
                blank=True,
                editable=False,
                help_text="Its jobs at the last look: total, done, failed, running; and the stamp of the job list.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="webhookdelivery",
            name="event",
            field=models.CharField(
                choices=[
                    ("run.completed", "a run ended with exit code 0"),
                    ("run.terminated", "a run ended in any other way"),
                    ("run.never_started", "a run was requested and its command was never executed"),
                    ("run.silent", "a run prints nothing for longer than its profile allows"),
                    ("run.log_too_large", "the log of a run has passed the limit of the service"),
                    ("run.restarted", "a run was started again, or could not be"),
                    ("operation.failed", "an operation failed, or its outcome is unknown"),
                ],
                max_length=32,
            ),
        ),
    ]
