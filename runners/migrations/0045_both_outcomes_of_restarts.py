from django.db import migrations, models
from django.db.models import Q

WEAKER = "it is weaker than the constraint that it replaces."


class Migration(migrations.Migration):
    """A run that is a restart itself, and then is not started again, has two messages of one event."""

    is_safe = {
        "webhookdelivery_one_delivery_unless_repeated": WEAKER,
        "mail_one_mail_unless_repeated": WEAKER,
    }

    dependencies = [
        ("runners", "0044_token_scope_labels"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.UniqueConstraint(
                condition=Q(run__isnull=False) & ~Q(event__in=("run.silent", "run.restarted")),
                fields=["webhook", "run", "event"],
                name="one_delivery_unless_repeated",
            ),
        ),
        migrations.RemoveConstraint(model_name="webhookdelivery", name="one_delivery_unless_silent"),
        migrations.AddConstraint(
            model_name="mail",
            constraint=models.UniqueConstraint(
                condition=Q(run__isnull=False) & ~Q(event__in=("run.silent", "run.restarted")),
                fields=["user", "run", "event"],
                name="one_mail_unless_repeated",
            ),
        ),
        migrations.RemoveConstraint(model_name="mail", name="one_mail_unless_silent"),
    ]
