from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("profiles", "0010_silent_after"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="publishedsshkey",
            options={
                "ordering": ["id"],
                "permissions": (
                    ("manage_service_keys", "Can make, replace and retire the SSH keys of the service"),
                ),
                "verbose_name": "published SSH key",
                "verbose_name_plural": "published SSH keys",
            },
        ),
    ]
