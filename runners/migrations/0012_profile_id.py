"""Rows get the number of their profile. Who sees a run went by the profile's name, so a new name showed it to everybody.

A run whose profile is no longer there may have been hidden, and nobody knows by which groups: then only who started it
and superusers see it. That is not possible where profiles get groups that see (profiles 0003) by this very upgrade.
"""

from datetime import timedelta

from django.db import migrations, models
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import OuterRef, Subquery
from django.utils import timezone

THIS_UPGRADE = timedelta(hours=1)  # between the two migrations of one `migrate`, however many rows there are


def number_rows(apps, schema_editor):
    alias = schema_editor.connection.alias
    profiles = apps.get_model("profiles", "RunnerProfile").objects.using(alias)
    deleted = apps.get_model("profiles", "DeletedProfile").objects.using(alias)
    models_of_rows = [apps.get_model("runners", name) for name in ("RunnerRun", "Operation", "AuditRecord")]
    number = Subquery(profiles.filter(name=OuterRef("profile_name")).values("pk")[:1])
    for model in models_of_rows:
        model.objects.using(alias).exclude(profile_name="").update(profile_id=number)
    if _is_new(schema_editor.connection):
        return
    run, operation, _ = (
        model.objects.using(alias).filter(profile_id=None).exclude(profile_name="") for model in models_of_rows
    )
    names = {*run.values_list("profile_name", flat=True).distinct()}
    names |= {*operation.values_list("profile_name", flat=True).distinct()}
    for place, name in enumerate(sorted(names), 1):
        deleted.create(number=-place, name=name, view_groups=[])
    number = Subquery(deleted.filter(name=OuterRef("profile_name")).values("number")[:1])
    for model in models_of_rows:
        model.objects.using(alias).filter(profile_id=None).exclude(profile_name="").update(profile_id=number)


def _is_new(connection):
    """Whether profiles have got groups that see just now."""
    found = MigrationRecorder(connection).migration_qs.filter(app="profiles", name="0003_bind_and_view").first()
    return found is not None and timezone.now() - found.applied < THIS_UPGRADE


class Migration(migrations.Migration):

    dependencies = [
        ('runners', '0011_operation_notes'),
        ('profiles', '0004_view_rules_of_deleted'),
    ]

    operations = [
        migrations.AddField(
            model_name='auditrecord',
            name='profile_id',
            field=models.BigIntegerField(blank=True, editable=False, help_text='The number of the profile. It may have been deleted.', null=True),
        ),
        migrations.AddField(
            model_name='operation',
            name='profile_id',
            field=models.BigIntegerField(blank=True, editable=False, help_text='The number of the profile. It may have been deleted.', null=True),
        ),
        migrations.AddField(
            model_name='runnerrun',
            name='profile_id',
            field=models.BigIntegerField(blank=True, editable=False, help_text='The number of the profile. It may have been deleted.', null=True),
        ),
        migrations.RunPython(number_rows, migrations.RunPython.noop),
    ]
