from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("profiles", "0004_view_rules_of_deleted"),
    ]

    operations = [
        migrations.AddField(
            model_name="runnerprofile",
            name="installation",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="The Autosubmit database that the commands use, by a name that you choose. Profiles that use "
                "the same database have the same name. An experiment runs once in an installation, whichever profile "
                "starts it. {user} is the account that runs the commands and {host} its machine: write {user}@{host} "
                "when every account has a database of its own. Empty: the installation 'default', one for all.",
                max_length=100,
            ),
        ),
    ]
