from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('runners', '0004_operations_and_run_indexes'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='runnerrun',
            index=models.Index(fields=['-finished', '-id'], name='run_finished'),
        ),
    ]
