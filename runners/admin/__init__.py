"""The admin of runs, operations, the audit log, people, tokens, host keys, webhooks, mail and checks."""

from __future__ import annotations

from typing import cast

from django.contrib import admin

from runners.admin import (  # noqa: F401  (each registers its models)
    audit,
    check,
    first_steps,
    host_keys,
    machines,
    mail,
    operations,
    runs,
    ssh_keys,
    tokens,
    users,
    webhooks,
)
from runners_project.admin_site import Site

# Hide the tasks of the workers (PostgreSQL only): they follow the rows of this service, so nobody has to act on them.
for _model in [each for each in admin.site._registry if each._meta.app_label == "procrastinate"]:
    admin.site.unregister(_model)

SITE = cast(Site, admin.site)
SITE.add_page(first_steps.PAGE)
SITE.add_page(ssh_keys.PAGE)
SITE.index_context = first_steps.for_index
admin.site.site_header = "Autosubmit Runners"
admin.site.site_title = "Autosubmit Runners"
admin.site.index_title = "Administration"
