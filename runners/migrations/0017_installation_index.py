from django.db import migrations, models

from runners import online_migrations


class Migration(migrations.Migration):
    atomic = False  # for CREATE INDEX CONCURRENTLY

    dependencies = [
        ("runners", "0016_sign_in_attempts"),
    ]

    operations = [
        online_migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(fields=["installation", "-id"], name="run_of_installation"),
        ),
    ]
