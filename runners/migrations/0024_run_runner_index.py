from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("runners", "0023_kinds_of_the_registry"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="runnerrun",
            name="run_runner_latest",
        ),
    ]
