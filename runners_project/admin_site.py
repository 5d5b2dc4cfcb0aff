"""The admin site. The URL of a list can filter and sort it only as the list offers.

Django lets the URL of a list filter by any field of a row: `?secret__regex=^a` tells everybody who may view the list
whether the secret begins with an a. So the whole secret can be read, character by character. This site restricts every
registered class, including Django's own classes and those of later models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite, ModelAdmin, SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AdminSplitDateTime, AutocompleteSelect
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import DateTimeField, Model
from django.db.models.base import ModelBase
from django.forms import ModelMultipleChoiceField
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse

# What Django's filters append to the name of a field.
FILTER_LOOKUPS = ("", "exact", "isnull", "gte", "lt", "in", "id__exact", "pk__exact")
SEARCH_LENGTH, SEARCH_WORDS = 200, 10  # each word is compared with each field; SQLite allows a thousand comparisons
DATE_LOOKUPS = ("year", "month", "day")


class OnlyOfferedOrders(ChangeList):
    """A list whose URL sorts it only by the columns that it offers: others may have no index, and millions of rows."""

    def get_ordering_field(self, field_name: Any) -> Any:
        return super().get_ordering_field(field_name) if field_name in (self.sortable_by or ()) else None

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _incorrect_if_too_large():
            return super().get_queryset(request, *args, **kwargs)

    def get_results(self, request: HttpRequest) -> None:
        with _incorrect_if_too_large():
            super().get_results(request)


@contextmanager
def _incorrect_if_too_large() -> Iterator[None]:
    """Report a number that SQLite cannot hold, or a time that UTC does not have, as Django reports other values."""
    try:
        yield
    except OverflowError as error:
        raise IncorrectLookupParameters(error) from error


def can_exist(field: Any, value: Any) -> bool:
    """Return True if a row may have this value in a column. SQLite holds no number from 2^63 on."""
    try:
        found = field.to_python(value)
    except ValidationError:
        return False
    return not isinstance(found, int) or abs(found) < 2**63


class OnlyOfferedFilters:
    """The first base of every admin class of the site: restricts filters, orders and the length of a search."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        base = super().get_changelist(request, **kwargs)  # type: ignore[misc]
        return type(base.__name__, (OnlyOfferedOrders, base), {})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in offered_lookups(self, request) and super().lookup_allowed(lookup, value, request)  # type: ignore[misc]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        if len(search_term) > SEARCH_LENGTH or len(search_term.split()) > SEARCH_WORDS:
            words = f"Search for at most {SEARCH_WORDS} words with {SEARCH_LENGTH} characters. Nothing was searched."
            messages.error(request, words)
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)  # type: ignore[misc]


class RelatedRowsField(ModelMultipleChoiceField):
    """Django's field, which SQLite lets fail if a number is too large for a column."""

    def clean(self, value: Any) -> Any:
        try:
            return super().clean(value)
        except OverflowError:
            rows: Any = self.queryset
            large = next(each for each in value if not can_exist(rows.model._meta.pk, each))
            words = self.error_messages["invalid_choice"]
            raise ValidationError(words, code="invalid_choice", params={"value": large}) from None


class RelatedRowSelect(AutocompleteSelect):
    """Django's widget, which looks up every value that was sent, also one that its field has rejected."""

    def optgroups(self, name: str, value: Sequence[str], attrs: dict[str, Any] | None = None) -> Any:
        known = [each for each in value if not each or can_exist(self.field.target_field, each)]
        return super().optgroups(name, known, attrs)


class SafeForms:
    """A base of every admin class of the site: no value of an address or a form is an error of the service."""

    model: type[Model]
    opts: Any

    def response_action(self, request: HttpRequest, queryset: Any) -> HttpResponseBase | None:
        if not all(can_exist(self.opts.pk, text) for text in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            raise BadRequest("No row has such a number.")
        found: HttpResponseBase | None = super().response_action(request, queryset)  # type: ignore[misc]
        return found

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):  # type: ignore[attr-defined]
            kwargs.setdefault("widget", RelatedRowSelect(db_field, self.admin_site))  # type: ignore[attr-defined]
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_manytomany(db_field, request, **{"form_class": RelatedRowsField, **kwargs})  # type: ignore[misc]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the values of the address for an empty form, without times: Django takes them as texts, and fails."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)  # type: ignore[misc]
        times = {field.name for field in self.model._meta.get_fields() if isinstance(field, DateTimeField)}
        return {name: value for name, value in initial.items() if name not in times}


class LabelledTimes:
    """A base of every admin class of the site: names the two fields of a date and time for screen readers."""

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)  # type: ignore[misc]
        if field and isinstance(field.widget, AdminSplitDateTime):
            for widget, label in zip(field.widget.widgets, ("Date", "Time"), strict=True):
                widget.attrs["aria-label"] = f"{label}: {field.label}"
        return field


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


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the admin that belongs to no model, at `admin/<route>`.

    Only staff reach it. People with one of the `permissions` find it in the menu of `app_label`; the view checks them.
    """

    route: str
    name: str
    title: str
    view: Callable[..., HttpResponseBase]
    app_label: str
    permissions: tuple[str, ...]

    @property
    def menu_line(self) -> dict[str, Any]:
        url = reverse(f"admin:{self.name}")
        return {"name": self.title, "object_name": self.name, "admin_url": url, "view_only": True}


class Site(AdminSite):
    # What the first page shows in addition: context for its template.
    index_context: Callable[[HttpRequest], dict[str, Any]] = staticmethod(lambda request: {})

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        self._pages: list[Page] = []

    def add_page(self, page: Page) -> None:
        """Add a page that belongs to no model, and its line in the menu."""
        self._pages.append(page)

    def get_urls(self) -> list[Any]:
        pages = [path(page.route, self.admin_view(page.view), name=page.name) for page in self._pages]
        return [*pages, *super().get_urls()]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the menu, with the pages that the person may see in front of the models."""
        menu = super().get_app_list(request, app_label)
        for app in menu:
            pages = [page for page in self._pages if page.app_label == app["app_label"]]
            app["models"] = [
                *(page.menu_line for page in pages if any(map(request.user.has_perm, page.permissions))),
                *app["models"],
            ]
        return menu

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """Show the first page, with the health warnings of the service."""
        from runners.services import health  # the models are not loaded yet when this module is imported

        context: dict[str, Any] = {}
        if self.has_permission(request):
            context = {"health_warnings": health.report().warnings, **self.index_context(request)}
        return super().index(request, {**(extra_context or {}), **context})

    def register(
        self,
        model_or_iterable: type[Model] | Iterable[type[Model]],
        admin_class: type[ModelAdmin[Any]] | None = None,
        **options: Any,
    ) -> None:
        base = admin_class or ModelAdmin
        members = {"__module__": base.__module__, "__doc__": base.__doc__}
        narrow = type(base.__name__, (OnlyOfferedFilters, SafeForms, LabelledTimes, base), members)
        models = [model_or_iterable] if isinstance(model_or_iterable, ModelBase) else model_or_iterable
        super().register(models, narrow, **options)
