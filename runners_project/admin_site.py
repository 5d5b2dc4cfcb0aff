"""The admin site. Its addresses filter by what its lists offer as filters, and by nothing else.

Django lets any field of a row be asked in the address of its list: `?secret__regex=^a` tells whoever may look at the
list whether the secret begins with an a, and so all of it, character by character. Here every registered class gets
the narrow rule, Django's own classes and those of later models included.
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

# What Django's filters put behind the name of a field.
FILTER_LOOKUPS = ("", "exact", "isnull", "gte", "lt", "in", "id__exact", "pk__exact")
SEARCH_LENGTH, SEARCH_WORDS = 200, 10  # each word is a comparison with each field; SQLite takes a thousand of them
DATE_LOOKUPS = ("year", "month", "day")


class OnlyOfferedFilters:
    """First among the bases of every admin class of the site."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in offered_lookups(self, request) and super().lookup_allowed(lookup, value, request)  # type: ignore[misc]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        if len(search_term) > SEARCH_LENGTH or len(search_term.split()) > SEARCH_WORDS:
            words = f"Search for at most {SEARCH_WORDS} words with {SEARCH_LENGTH} characters. Nothing was searched."
            messages.error(request, words)
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)  # type: ignore[misc]


def offered_lookups(model_admin: Any, request: HttpRequest) -> set[str]:
    """The names that the filters of a list may have in its address."""
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
        """The first page, with what is wrong with the service."""
        from runners.services import health  # the models are not loaded yet when this module is

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
