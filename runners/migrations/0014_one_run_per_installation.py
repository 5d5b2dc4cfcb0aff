from django.db import migrations, models


class Migration(migrations.Migration):
    """The new constraint comes before the old one goes: at no moment can an experiment run twice."""

    dependencies = [
        ("runners", "0013_installation"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(fields=["expid", "installation", "-id"], name="run_installation_latest"),
        ),
        migrations.AddConstraint(
            model_name="runnerrun",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "ACTIVE")),
                fields=("expid", "installation"),
                name="one_active_run_per_installation",
            ),
        ),
        migrations.RemoveConstraint(model_name="runnerrun", name="one_active_run_per_expid"),
    ]
