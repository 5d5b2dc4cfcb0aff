import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("profiles", "0009_plain_words"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerprofile",
            name="silent_after",
            field=models.PositiveIntegerField(
                blank=True,
                db_default=0,
                default=0,
                help_text="A run that prints nothing for this many seconds is marked as silent, and webhooks tell it "
                "once. Runs keep the value of their start. 0: off.",
                validators=[django.core.validators.MaxValueValidator(31622400)],
                verbose_name="silent after (seconds)",
            ),
        ),
    ]
