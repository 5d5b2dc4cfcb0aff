"""The lookup of tokens, which reads rows with its own SQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries

from runners.models import ApiToken
from runners.models.token import hash_token

pytestmark = pytest.mark.django_db


def test_a_token_and_its_user_are_read_as_django_reads_them(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    person = User.objects.create_user("marie", "marie@example.org", "secret", is_staff=True)
    made, text = ApiToken.issue(user=person, expiry=timedelta(days=1), name="laptop")
    ApiToken.issue(user=User.objects.create(username="other"))
    with django_assert_num_queries(1):
        found = ApiToken.objects.with_digest(hash_token(text))
        assert found
        assert found.user == person
    for ours, theirs in ((found, ApiToken.objects.get(pk=made.pk)), (found.user, User.objects.get(pk=person.pk))):
        for field in ours._meta.concrete_fields:
            left, right = getattr(ours, field.attname), getattr(theirs, field.attname)
            assert (left, type(left)) == (right, type(right)), field


def test_a_revoked_token_is_not_found() -> None:
    made, text = ApiToken.issue(user=User.objects.create(username="marie"))
    assert ApiToken.objects.with_digest(hash_token(text))
    made.delete()
    assert ApiToken.objects.with_digest(hash_token(text)) is None


def test_a_token_that_was_read_can_be_saved_and_deleted() -> None:
    _, text = ApiToken.issue(user=User.objects.create(username="marie"))
    found = ApiToken.objects.with_digest(hash_token(text))
    assert found
    found.name = "changed"
    found.save()
    assert ApiToken.objects.get().name == "changed"
    found.delete()
    assert not ApiToken.objects.exists()
