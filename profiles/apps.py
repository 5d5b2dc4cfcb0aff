from django.apps import AppConfig


class ProfilesConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "profiles"
    verbose_name = "Configuration"

    def ready(self) -> None:
        from profiles import checks, groups, names  # noqa: F401  # their receivers
