from django.db import migrations, models


class Migration(migrations.Migration):
    """Existing rows belong to the default installation. PostgreSQL adds such a column without writing the table."""

    dependencies = [
        ("runners", "0012_profile_id"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerrun",
            name="installation",
            field=models.CharField(
                db_default="default",
                default="default",
                help_text="The Autosubmit database that it uses, by the name that its profile had for it at the start.",
                max_length=417,
            ),
        ),
        migrations.AddField(
            model_name="operation",
            name="installation",
            field=models.CharField(db_default="default", default="default", max_length=417),
        ),
    ]
