"""Columns take their default from the clock of the database. Only the state changes: no statement is executed."""

import runners_project.clock
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('runners', '0039_experiment_descriptions'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name='auditrecord',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='experimentdescription',
                    name='seen_at',
                    field=models.DateTimeField(db_index=True, default=runners_project.clock.now, help_text='When it was last seen, within a day.'),
                ),
                migrations.AlterField(
                    model_name='heartbeat',
                    name='seen',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='heartbeat',
                    name='started',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='idempotencyrecord',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='idempotencyrecord',
                    name='owned_until',
                    field=models.DateTimeField(default=runners_project.clock.now, help_text='The end of its lease.'),
                ),
                migrations.AlterField(
                    model_name='mail',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='mail',
                    name='next_attempt',
                    field=models.DateTimeField(blank=True, default=runners_project.clock.now, null=True),
                ),
                migrations.AlterField(
                    model_name='mailsubscription',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='maintenance',
                    name='starts',
                    field=models.DateTimeField(default=runners_project.clock.now, help_text='Commands are refused from this time on.'),
                ),
                migrations.AlterField(
                    model_name='nodecommand',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='operation',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='operation',
                    name='modified',
                    field=models.DateTimeField(default=runners_project.clock.now, help_text='When the state last changed.'),
                ),
                migrations.AlterField(
                    model_name='runnerrun',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='runnerrun',
                    name='modified',
                    field=models.DateTimeField(default=runners_project.clock.now, help_text='When the state last changed.'),
                ),
                migrations.AlterField(
                    model_name='seendatabase',
                    name='seen',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='seenforeignrun',
                    name='seen_at',
                    field=models.DateTimeField(db_index=True, default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='signinattempts',
                    name='expires',
                    field=models.DateTimeField(db_index=True, default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='trustedhostkey',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='webhook',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now, editable=False),
                ),
                migrations.AlterField(
                    model_name='webhookdelivery',
                    name='created',
                    field=models.DateTimeField(default=runners_project.clock.now),
                ),
                migrations.AlterField(
                    model_name='webhookdelivery',
                    name='next_attempt',
                    field=models.DateTimeField(blank=True, default=runners_project.clock.now, null=True),
                ),
            ],
        ),
    ]
