from django.db import migrations, models


class Migration(migrations.Migration):
    """Indexes of the searches and filters of the admin's lists, which read whole tables without them."""

    dependencies = [
        ("runners", "0041_webhook_previous_secret"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="auditrecord",
            index=models.Index(fields=["address", "-id"], name="audit_address"),
        ),
        migrations.AddIndex(
            model_name="auditrecord",
            index=models.Index(condition=models.Q(("token__gt", "")), fields=["token", "-id"], name="audit_token"),
        ),
        migrations.AddIndex(
            model_name="mail",
            index=models.Index(condition=models.Q(("sent_at", None)), fields=["-id"], name="mail_undone"),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(fields=["expid", "-id"], name="operation_expid"),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(fields=["started_by", "-id"], name="operation_person"),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(fields=["host", "-id"], name="operation_host"),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(fields=["kind", "-id"], name="operation_kind"),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(fields=["event", "-id"], name="delivery_event_latest"),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(condition=models.Q(("delivered_at", None)), fields=["-id"], name="delivery_undone"),
        ),
    ]
