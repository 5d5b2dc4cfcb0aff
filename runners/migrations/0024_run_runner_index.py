from runners import online_migrations
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False  # for DROP INDEX CONCURRENTLY

    dependencies = [
        ("runners", "0023_kinds_of_the_registry"),
    ]

    operations = [
        online_migrations.RemoveIndex(
            model_name="runnerrun",
            name="run_runner_latest",
        ),
    ]
