from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """Columns that may be null or have a default, so PostgreSQL adds them without writing the table, and an index."""

    dependencies = [
        ("runners", "0031_host_authorities"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerrun",
            name="restart",
            field=models.JSONField(
                blank=True,
                editable=False,
                help_text="When it is to be started again: on (lost, platform) and attempts. null: never.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="restart_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="When it is to be started again; null: no restart is pending.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="restart_detail",
            field=models.TextField(
                blank=True, db_default="", default="", editable=False, help_text="What became of the restart."
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="restart_key",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="The key of the run to start.",
                max_length=32,
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="restarts",
            field=models.PositiveSmallIntegerField(
                db_default=0,
                default=0,
                editable=False,
                help_text="How many automatic restarts have led to this run.",
            ),
        ),
        migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(condition=Q(restart_at__isnull=False), fields=["restart_at"], name="run_restart_due"),
        ),
    ]
