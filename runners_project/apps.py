"""The admin with a site of our own, in INSTALLED_APPS in the place of `django.contrib.admin`."""

from django.contrib.admin.apps import AdminConfig


class SiteConfig(AdminConfig):
    default_site = "runners_project.admin_site.Site"
