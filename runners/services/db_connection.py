"""Handle a lost database connection in work that is under way."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError, connection

from runners.services.machines.runner import exchange_ended

LOST = (OperationalError, InterfaceError)  # the database was not reached, or did not answer


def check_connection_before_next_statement() -> None:
    """Let the next statement of this thread open a new connection if the current one has been lost.

    Call this after a wait in which the database may have been restarted. Django itself checks only at the start of a
    request. Inside a transaction nothing can be done: its statements are lost with the connection.
    """
    if not connection.in_atomic_block:
        connection.health_check_done = False  # type: ignore[attr-defined]  # of Django, missing in its stubs


def connect() -> None:
    """Check the connection after each wait for a machine. Called when the application is ready."""
    exchange_ended.connect(_after_exchange)


def _after_exchange(**_: object) -> None:
    check_connection_before_next_statement()


def drop_lost_connection() -> bool:
    """Close the connection of this thread if it has been lost. Return True if the next statement may open a new one."""
    if connection.in_atomic_block or connection.connection is None or connection.is_usable():
        return False
    connection.close()
    return True
