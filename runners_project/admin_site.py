"""The admin site. The URL of a list can filter only by the filters that the list offers.

Django lets the URL of a list filter by any field of a row: `?secret__regex=^a` tells everybody who may view the list
whether the secret begins with an a. So the whole secret can be read, character by character. This site restricts every
registered class, including Django's own classes and those of later models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite, ModelAdmin, SimpleListFilter
from django.db.models import Model
from django.db.models.base import ModelBase
from django.http import HttpRequest
from django.template.response import TemplateResponse

# What Django's filters append to the name of a field.
FILTER_LOOKUPS = ("", "exact", "isnull", "gte", "lt", "in", "id__exact", "pk__exact")
SEARCH_LENGTH, SEARCH_WORDS = 200, 10  # each word is compared with each field; SQLite allows a thousand comparisons
DATE_LOOKUPS = ("year", "month", "day")


class OnlyOfferedFilters:
    """The first base of every admin class of the site: restricts filters and the length of a search."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in offered_lookups(self, request) and super().lookup_allowed(lookup, value, request)  # type: ignore[misc]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        if len(search_term) > SEARCH_LENGTH or len(search_term.split()) > SEARCH_WORDS:
            words = f"Search for at most {SEARCH_WORDS} words with {SEARCH_LENGTH} characters. Nothing was searched."
            messages.error(request, words)
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)  # type: ignore[misc]


def offered_lookups(model_admin: Any, request: HttpRequest) -> set[str]:
    """Return the lookups that the filters of a list may use in its URL."""
    offered = {f"{model_admin.date_hierarchy}__{part}" for part in DATE_LOOKUPS if model_admin.date_hierarchy}
    for item in model_admin.get_list_filter(request):
        if isinstance(item, type) and issubclass(item, SimpleListFilter):
            offered.add(str(item.parameter_name))
        else:
            field = item[0] if isinstance(item, list | tuple) else item
            offered |= {f"{field}__{lookup}".removesuffix("__") for lookup in FILTER_LOOKUPS}
    return offered


class Site(AdminSite):
    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """Show the first page, with the health warnings of the service."""
        from runners.services import health  # the models are not loaded yet when this module is imported

        warnings = health.report().warnings if self.has_permission(request) else ()
        return super().index(request, {**(extra_context or {}), "health_warnings": warnings})

    def register(
        self,
        model_or_iterable: type[Model] | Iterable[type[Model]],
        admin_class: type[ModelAdmin[Any]] | None = None,
        **options: Any,
    ) -> None:
        base = admin_class or ModelAdmin
        members = {"__module__": base.__module__, "__doc__": base.__doc__}
        narrow = type(base.__name__, (OnlyOfferedFilters, base), members)
        models = [model_or_iterable] if isinstance(model_or_iterable, ModelBase) else model_or_iterable
        super().register(models, narrow, **options)
