from django.db import migrations, models

HELP = "Its own number was taken when it was found again, so its new number does not tell its age."


class Migration(migrations.Migration):
    """Mark the rows that find_runs made with a new number, so that lists by date find them and all others."""

    dependencies = [
        ("runners", "0045_both_outcomes_of_restarts"),
    ]

    operations = [
        migrations.AddField(
            model_name="operation",
            name="renumbered",
            field=models.BooleanField(db_default=False, default=False, editable=False, help_text=HELP),
        ),
        migrations.AddField(
            model_name="runnerrun",
            name="renumbered",
            field=models.BooleanField(db_default=False, default=False, editable=False, help_text=HELP),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(condition=models.Q(("renumbered", True)), fields=["-id"], name="operation_renumbered"),
        ),
        migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(condition=models.Q(("renumbered", True)), fields=["-id"], name="run_renumbered"),
        ),
    ]
