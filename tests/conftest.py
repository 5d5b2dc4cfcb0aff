"""The plugins of all tests. Each is a module of tests/support, whose docstring says what is in it."""

from __future__ import annotations

pytest_plugins = ("tests.support.scheduling", "tests.support.isolation", "tests.support.fixtures")
