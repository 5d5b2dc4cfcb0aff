from django.db import migrations, models


def make_run(apps, schema_editor):
    """Tokens of the scope "manage" could do exactly what those of "run" can."""
    apps.get_model("runners", "ApiToken").objects.filter(scope="manage").update(scope="run")


class Migration(migrations.Migration):
    dependencies = [
        ("runners", "0006_indexes_of_filters"),
    ]

    operations = [
        migrations.RunPython(make_run, migrations.RunPython.noop, elidable=True),
        migrations.AlterField(
            model_name="apitoken",
            name="scope",
            field=models.CharField(
                choices=[("read", "read: status, logs and configuration"), ("run", "run: read, and the commands")],
                default="run",
                max_length=8,
            ),
        ),
    ]
