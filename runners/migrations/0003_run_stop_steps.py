from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runners", "0002_webhooks_and_cleaned_at"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerrun",
            name="stop_steps",
            field=models.JSONField(
                blank=True,
                default=list,
                editable=False,
                help_text="What the last stop has tried so far, as it happens.",
            ),
        ),
    ]
