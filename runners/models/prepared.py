"""Rows that every status reads: the SQL of their columns and the converters of their values are prepared once.

Django builds both for each query, which takes five times as long as the query itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.db import connections, models


class PreparedColumns:
    """All columns of some models, in the order of a SELECT: `sql` selects them, and `instances` makes the rows."""

    def __init__(self, alias: str, *selected: type[models.Model]) -> None:
        self._alias = alias
        quote = connections[alias].ops.quote_name
        names: list[str] = []
        self._parts: list[tuple[type[models.Model], slice, list[str]]] = []
        self._converters: list[tuple[int, list[Any], Any]] = []  # place, functions, column
        for model in selected:
            meta = model._meta
            first = len(names)
            columns = [field.get_col(meta.db_table) for field in meta.concrete_fields]
            names += [f"{quote(meta.db_table)}.{quote(str(field.column))}" for field in meta.concrete_fields]
            compiler = model._default_manager.using(alias).all().query.get_compiler(alias)
            found = compiler.get_converters(columns)
            self._converters += [(first + place, *converters) for place, converters in found.items()]
            fields = [field.attname for field in meta.concrete_fields]
            self._parts.append((model, slice(first, len(names)), fields))
        self.sql = ", ".join(names)

    def instances(self, row: Sequence[Any]) -> list[Any]:
        """Return the instances of the models. `row` begins with the columns of `sql`; what follows is ignored."""
        values = list(row)
        connection = connections[self._alias]
        for place, functions, column in self._converters:
            for convert in functions:
                values[place] = convert(values[place], column, connection)
        return [model.from_db(self._alias, names, values[part]) for model, part, names in self._parts]


@cache
def prepared_columns(alias: str, *selected: type[models.Model]) -> PreparedColumns:
    """Return the columns of the models on a database, prepared once in each process."""
    return PreparedColumns(alias, *selected)
