"""The admin with our own site. INSTALLED_APPS has it instead of `django.contrib.admin`."""

from django.contrib.admin.apps import AdminConfig


class SiteConfig(AdminConfig):
    default_site = "runners_project.admin_site.Site"
