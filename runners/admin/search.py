"""Search in lists with millions of rows: exact values by their indexes, and parts of texts in the newest rows only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Model, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils.text import smart_split, unescape_string_literal

from runners.services.bounded_queries import first_values

MOST_FOUND = 2_000  # newest rows of each column, if several columns have the word
NEWEST = 20_000  # rows of which more is compared than an index can tell
MOST_VALUES = 1_000  # of a column with few values
EXACT, PART = "__exact", "__icontains"


@dataclass
class Word:
    """Where one word of a search is found. `columns`: conditions for which an index exists. `text`: the other one.

    `is_cut`: a column has more than MOST_VALUES values, so not all of them were compared.
    """

    columns: list[Q] = field(default_factory=list)
    text: Q = field(default_factory=Q)
    is_cut: bool = False

    @property
    def condition(self) -> Q:
        """Return the condition for a row that has the word; an empty one if there is no such row."""
        return _any(self.columns) or self.text


class IndexedSearch(admin.ModelAdmin):
    """A search that costs no more than some ten thousand rows, whatever the size of the table and the words.

    `search_fields` has lookups of two kinds. With `__exact`, the column has an index. With `__icontains`, the column is
    one of `few_values`, whose values are compared instead of the rows; or it is a text, which is compared only if no
    other column has the word, and only in the newest rows. A search that is limited says so.
    """

    few_values: ClassVar[tuple[str, ...]] = ()  # columns with an index and few different values

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[Any, bool]:
        words = [self._word(text) for text in split(search_term)]
        if not words:
            return queryset, False
        if any(word.is_cut for word in words):
            text = f"Only the first {MOST_VALUES:,} of these values were compared: {', '.join(self.few_values)}."
            messages.info(request, f"{text} Write a whole value to find others.")
        if not all(word.condition for word in words):
            return queryset.none(), False
        first = next((word for word in words if word.columns), None)
        if first and len(words) == len(first.columns) == 1:
            return queryset.filter(first.columns[0]), False
        rest = [word.condition for word in words if word is not first]
        found: set[Any] = set()
        is_cut = False
        for branch in [queryset.filter(column) for column in first.columns] if first else [queryset]:
            if rest:
                branch, is_limited = newest(branch)
                is_cut |= is_limited
            numbers = _newest_numbers(branch.filter(*rest))[: MOST_FOUND + 1]
            is_cut |= len(numbers) > MOST_FOUND
            found.update(numbers[:MOST_FOUND])
        if is_cut:
            text = f"Only the newest rows were searched ({NEWEST:,} at most, {MOST_FOUND:,} of each column)."
            messages.info(request, f"{text} Choose a date or another filter for others.")
        return queryset.filter(pk__in=found), False

    def _word(self, text: str) -> Word:
        word = Word()
        parts = [lookup.removesuffix(PART) for lookup in self.search_fields if lookup.endswith(PART)]
        exact = [lookup.removesuffix(EXACT) for lookup in self.search_fields if lookup.endswith(EXACT)]
        word.columns = [having(path, "exact", text) for path in exact if exists(self.model, path, text)]
        named = Q()
        for name in parts:
            if name in self.few_values:
                values = first_values(self.model, name, MOST_VALUES + 1)
                word.is_cut |= len(values) > MOST_VALUES
                values = values[:MOST_VALUES]
                found = [value for value in values if text.casefold() in value.casefold()]
                found += [text] if text not in found and exists(self.model, name, text) else []
                named |= Q(**{f"{name}__in": found}) if found else Q()
        word.columns += [named] if named else []
        word.text = _any(Q(**{f"{name}{PART}": text}) for name in parts if name not in self.few_values)
        return word


def split(search_term: str) -> list[str]:
    """Return the words of a search, as Django splits it: quotes keep words together."""
    found = []
    for bit in smart_split(search_term):
        if bit.startswith(('"', "'")) and bit[0] == bit[-1] and len(bit) > 1:
            bit = unescape_string_literal(bit)
        found.append(bit)
    return found


def having(path: str, lookup: str, value: str) -> Q:
    """Return a condition on a text that is not empty.

    Some indexes have only the rows whose text is not empty. SQLite uses such an index only if the query has the same
    condition, with a literal.
    """
    return Q(**{f"{path}__{lookup}": value, f"{path}__gt": RawSQL("''", ())})


def exists(model: type[Model], path: str, value: str) -> bool:
    """Return True if a row has this value in an indexed column. `path`: a column, or one of a related model.

    The query seeks the value in the order of the index. With a plain condition and LIMIT 1, PostgreSQL reads the table
    from its beginning if it expects that many rows have the value.
    """
    *relations, column = path.split("__")
    for relation in relations:
        model = model._meta.get_field(relation).related_model  # type: ignore[assignment]
    rows = model._default_manager.filter(having(column, "gte", value)).order_by(column)
    return bool(rows.values_list(column, flat=True).first() == value)


def newest(rows: QuerySet[Any]) -> tuple[QuerySet[Any], bool]:
    """Return the NEWEST of these rows, and True if there are more."""
    numbers = _newest_numbers(rows)[NEWEST : NEWEST + 1]
    return (rows.filter(pk__gt=numbers[0]), True) if numbers else (rows, False)


def _newest_numbers(rows: QuerySet[Any]) -> Any:
    return rows.order_by("-pk").values_list("pk", flat=True)


def _any(conditions: Iterable[Q]) -> Q:
    found = Q()
    for condition in conditions:
        found |= condition
    return found
