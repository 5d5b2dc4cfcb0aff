from django.db import migrations, models


class Migration(migrations.Migration):
    """Two columns that may be null: PostgreSQL adds them without writing the table."""

    dependencies = [
        ("runners", "0025_plain_words"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerrun",
            name="command_params",
            field=models.JSONField(
                blank=True,
                editable=False,
                help_text="The options of `autosubmit run` that were given; null: none.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="previous_run",
            field=models.BigIntegerField(
                blank=True,
                editable=False,
                help_text="The number of the run that this one continues. That row may have been deleted.",
                null=True,
            ),
        ),
    ]
