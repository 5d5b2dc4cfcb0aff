"""Shared code of the admin's pages: read-only rows, filters that stay fast with many rows, and formatting."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import CASCADE, ForeignObjectRel, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString

from runners.admin.search import IndexedSearch
from runners.models import RunnerRun
from runners.services.bounded_queries import first_values, numbers_between
from runners.templatetags import formatting
from runners.templatetags.formatting import local_time

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    AnyModelAdmin = admin.ModelAdmin
    AnyPaginator = Paginator

MOST_CHOICES = 30  # of a filter
MOST_COUNTED = 2_000  # rows that a list counts and pages through


class BoundedPaginator(AnyPaginator):
    """A paginator that stops at row MOST_COUNTED: COUNT(*) would read a whole table that only grows."""

    @cached_property
    def _found(self) -> int:
        # Without an order, so that the database may use any index.
        return int(self.object_list.order_by()[: MOST_COUNTED + 1].count())  # type: ignore[attr-defined]

    @cached_property
    def count(self) -> int:
        return min(self._found, MOST_COUNTED)

    @property
    def is_cut(self) -> bool:
        """Return True if there are more rows. The templates then say so."""
        return self._found > MOST_COUNTED


class ReadOnlyAdmin(IndexedSearch):
    """Read-only rows in large tables: no facets and no full count, because each would read the whole table."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = str(self.opts.verbose_name_plural).capitalize()  # not "Select ...": there is nothing to select
        return super().changelist_view(request, {"title": title, **(extra_context or {})})


class CountedDeletion(AnyModelAdmin):
    """The page that asks before a deletion counts the rows that are deleted, too: up to MOST_COUNTED of each model.

    Django's page loads and lists each of them. It also refuses rows with dependent rows that nobody may delete by hand,
    such as the messages of a webhook. These need no permission of their own.
    """

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        counts: Counter[str] = Counter({str(self.opts.verbose_name_plural): len(objs)})
        missing: set[str] = set()
        deleted: list[Any] = []
        for obj in objs:
            lines = []
            for model, found in self._deleted_with(obj):
                name = str(model._meta.verbose_name_plural)
                number = f"more than {MOST_COUNTED}" if found > MOST_COUNTED else found
                lines.append(f"{name[0].upper()}{name[1:]}: {number}")
                counts[name] += found
                if self._is_forbidden(model, request):
                    missing.add(str(model._meta.verbose_name))
            deleted += [f"{self.opts.verbose_name}: {obj}", lines] if lines else [f"{self.opts.verbose_name}: {obj}"]
        return deleted, dict(counts), missing, []

    def _deleted_with(self, obj: Model) -> Iterator[tuple[type[Model], int]]:
        """Yield each model with rows that are deleted with `obj`, and their number, at most MOST_COUNTED + 1."""
        for relation in self.opts.get_fields(include_hidden=True):
            if isinstance(relation, ForeignObjectRel) and relation.on_delete is CASCADE:
                model = relation.related_model
                rows = model._base_manager.filter(**{relation.field.name: obj})
                if not model._meta.auto_created and (found := rows[: MOST_COUNTED + 1].count()):
                    yield model, found

    def _is_forbidden(self, model: type[Model], request: HttpRequest) -> bool:
        other = self.admin_site._registry.get(model)
        return other is not None and not isinstance(other, ReadOnlyAdmin) and not other.has_delete_permission(request)


class ValuesFilter(admin.SimpleListFilter):
    """A filter by the values of an indexed text column. Each value costs one index seek, however many rows there are.

    SELECT DISTINCT would read the whole index.
    """

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> Iterable[tuple[str, str]]:
        found = first_values(model_admin.model, str(self.parameter_name), MOST_CHOICES)
        return [(each, each) for each in found]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ProfileFilter(ValuesFilter):
    title = "profile"
    parameter_name = "profile_name"


class HostFilter(ValuesFilter):
    title = "host"
    parameter_name = "host"


class StartedByFilter(ValuesFilter):
    title = "person"
    parameter_name = "started_by"


class DateFilter(admin.DateFieldListFilter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "date"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Begin the list where rows of this time are. Otherwise the database walks all rows in front of them."""
        rows = super().queryset(request, queryset)
        given: list[Any] = [
            self.used_parameters.get(f"{self.field_path}__{lookup}") or [""] for lookup in ("gte", "lt")
        ]
        after, before = (parse_datetime(str(values[-1])) for values in given)
        if rows is None or not all(each is None or each.tzinfo for each in (after, before)):
            return rows
        return rows.filter(numbers_between(rows, after, before))


class ChoiceFilter(admin.SimpleListFilter):
    """A filter by named conditions. `meanings`: value in the URL -> (label, condition)."""

    meanings: ClassVar[dict[str, tuple[str, Q]]]

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> Iterable[tuple[str, str]]:
        return [(word, label) for word, (label, _) in self.meanings.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        meaning = self.meanings.get(self.value() or "")
        return queryset.filter(meaning[1]) if meaning else queryset


def badge(text: object, tone: str, title: str = "") -> SafeString:
    """Return a coloured word. The word alone has the meaning; the colour only helps to find it."""
    tooltip = format_html(' title="{}"', title) if title else ""
    return format_html('<span class="badge {}"{}>{}</span>', tone, tooltip, text)


def badge_of_run(run: RunnerRun) -> SafeString:
    """Return the badge of a run with the words of the pages. Its tooltip has the words of the API."""
    return badge(formatting.badge(run), formatting.tone(run), formatting.wire_words(run))


def clipped(text: object) -> SafeString:
    """Return a name for a column: one line that ends with an ellipsis if it is long. The tooltip has the whole name."""
    return format_html('<bdi class="clip" title="{0}">{0}</bdi>', text) if text not in (None, "") else SafeString("-")


def short(value: datetime | None) -> SafeString | str:
    """Return a time for a column, to the minute."""
    return local_time(value, "minute") or "-"


def block(text: str) -> SafeString:
    """Return text unchanged in a box that scrolls and that the keyboard can reach."""
    return format_html('<pre class="code" tabindex="0">{}</pre>', text) if text else SafeString("-")


def as_json(value: object) -> SafeString:
    return block(json.dumps(value, indent=2, ensure_ascii=False) if value else "")
