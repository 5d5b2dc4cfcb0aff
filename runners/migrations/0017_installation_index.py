from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runners", "0016_sign_in_attempts"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="runnerrun",
            index=models.Index(fields=["installation", "-id"], name="run_of_installation"),
        ),
    ]
