"""What `forget_machine` and `forget_node` share."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from runners.exceptions import RunnerServiceError
from runners.services import acting
from runners.services.audit import audited
from runners.services.gone import Ended


class GoneCommand(BaseCommand):
    """`endpoint`: of the audit record. `forget`: the use case. `options`: further arguments that it takes."""

    endpoint: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    forget: Callable[..., Ended]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="its name, as /machines and /readyz show it")
        parser.add_argument("--reason", required=True, help="what people read at its runs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with audited(endpoint=self.endpoint, actor=acting.now().name, holds_changes=True) as record:
                given = {name: options[name] for name in ("name", "reason", *self.options)}
                ended = self.forget(**given, audit=record)
        except RunnerServiceError as error:
            raise CommandError(error.detail) from error
        self.stdout.write(f"{options['name']} is forgotten. {ended}")
