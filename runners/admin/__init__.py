"""The admin of runs, operations, the audit log, tokens, host keys, webhooks and checks."""

from __future__ import annotations

from django.contrib import admin

from runners.admin import (  # noqa: F401  (each registers its models)
    audit,
    check,
    host_keys,
    machines,
    operations,
    runs,
    tokens,
    webhooks,
)

admin.site.site_header = "Autosubmit Runners"
admin.site.site_title = "Autosubmit Runners"
admin.site.index_title = "Administration"
