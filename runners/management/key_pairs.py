"""What `create_ssh_key` and `create_ssh_ca` have in common: their options, and how errors become messages."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from runners.exceptions import InvalidRequest
from runners.services import key_pairs
from runners.services.key_pairs import NoPair, OldPairInUse, PairExists, PairKind
from runners.services.machines.own_account import own_account
from runners.services.machines.ssh import keys


class KeyPairCommand(BaseCommand):
    """A command that makes, replaces and retires one kind of pair. `third`: its option of its own, and the help."""

    kind: ClassVar[PairKind]
    third: ClassVar[tuple[str, str]]

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = self.kind.words
        parser.add_argument(
            "--comment", default="", help=f"the last word of the public line (default: {self.kind.comment}@HOST)"
        )
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--replace", action="store_true", help=f"create a new {what}; the old one also stays in use until --retire"
        )
        how.add_argument("--retire", action="store_true", help=f"delete the old {what} that --replace has kept")
        how.add_argument(self.third[0], action="store_true", help=self.third[1])

    def handle(self, *args: Any, **options: Any) -> None:
        actor = f"{own_account().pw_name} ({self.kind.endpoint.replace('-', '_')})"
        try:
            if options["retire"]:
                self.retired(key_pairs.retire(self.kind, actor=actor))
            elif options[self.third[0].removeprefix("--")]:
                self.other(actor)
            else:
                self.made(
                    key_pairs.make(self.kind, actor=actor, comment=options["comment"], replace=options["replace"])
                )
        except PairExists as error:
            raise CommandError(
                f"{error.detail} {self.third[0]} {self.third[1].removeprefix('only ')}, --replace creates a new one."
            ) from error
        except OldPairInUse as error:
            raise CommandError(f"{error.detail} Run --retire first.") from error
        except NoPair as error:
            raise CommandError(error.detail) from error
        except InvalidRequest as error:
            raise CommandError(f"--{error.detail}" if error.errors else error.detail) from error
        except OSError as error:
            raise CommandError(f"{keys.directory()} cannot be used: {error.strerror}.") from error

    def made(self, key: keys.PublicKey) -> None:
        """Print a new pair."""
        raise NotImplementedError

    def retired(self, key: keys.PublicKey) -> None:
        """Print what to do with the line of a retired pair."""
        raise NotImplementedError

    def other(self, actor: str) -> None:
        """Execute the command's own option."""
        raise NotImplementedError
