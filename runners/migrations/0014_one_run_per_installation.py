from django.db import migrations, models

from runners import online_migrations


class Migration(migrations.Migration):
    """The new constraint comes before the old one goes: at no moment can an experiment run twice."""

    atomic = False  # for CREATE INDEX CONCURRENTLY

    dependencies = [
        ("runners", "0013_installation"),
    ]

    operations = [
        online_migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(fields=["expid", "installation", "-id"], name="run_installation_latest"),
        ),
        online_migrations.AddUniqueConstraint(
            model_name="runnerrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "ACTIVE")),
                fields=("expid", "installation"),
                name="one_active_run_per_installation",
            ),
        ),
        online_migrations.RemoveUniqueConstraint(model_name="runnerrun", name="one_active_run_per_expid"),
    ]
