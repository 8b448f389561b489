"""How long disconnects and lost sessions are remembered."""

from __future__ import annotations

import pytest

from tambur.server import Limits
from tambur.server.broker import BrokerUnavailableError
from tambur.server.revocations import MARGIN_S, LostSession, LostSessions, Revocations

from ..support.broker import APP, OTHER_APP

LIMITS = Limits(session_ttl_s=100, session_max_s=1000, max_revocations=2)
NOW = 1_764_115_200_000


def room_after(revocations: Revocations, seconds: float) -> bool:
    try:
        revocations.require_room(APP, NOW + round(seconds * 1000))
    except BrokerUnavailableError:
        return False
    return True


def test_a_subscriber_is_revoked_for_as_long_as_a_key_could_be_valid() -> None:
    revocations = Revocations(LIMITS)
    revocations.revoke_subscriber(APP, "id", NOW)
    assert revocations.is_ended(APP, "id")
    assert not revocations.is_ended(OTHER_APP, "id")
    assert not revocations.is_ended(APP, "other")
    room_after(revocations, 100 + MARGIN_S - 1)
    assert revocations.is_ended(APP, "id")
    room_after(revocations, 100 + MARGIN_S)
    assert not revocations.is_ended(APP, "id")


def test_a_user_is_revoked_for_as_long_as_an_earlier_session_could_last() -> None:
    revocations = Revocations(LIMITS)
    revocations.revoke_user(APP, "alice", NOW)
    assert [revocations.allows(APP, "alice", NOW + i) for i in (-1, 0, 1)] == [False, False, True]
    assert revocations.allows(APP, "bob", NOW)
    assert revocations.allows(OTHER_APP, "alice", NOW)
    room_after(revocations, 1000 + MARGIN_S - 1)
    assert not revocations.allows(APP, "alice", NOW)
    room_after(revocations, 1000 + MARGIN_S)
    assert revocations.allows(APP, "alice", NOW)


def test_a_later_revocation_counts() -> None:
    revocations = Revocations(LIMITS)
    for at_ms in (NOW, NOW + 500, NOW + 100):
        revocations.revoke_user(APP, "alice", at_ms)
    assert not revocations.allows(APP, "alice", NOW + 500)
    assert revocations.allows(APP, "alice", NOW + 501)
    assert room_after(revocations, 1), "it is one revocation"


def test_the_number_of_an_apps_revocations_is_limited() -> None:
    revocations = Revocations(LIMITS)
    revocations.revoke_user(APP, "alice", NOW)
    assert room_after(revocations, 0)
    revocations.revoke_subscriber(APP, "id", NOW)
    assert not room_after(revocations, 0)
    revocations.require_room(OTHER_APP, NOW)
    assert room_after(revocations, 100 + MARGIN_S), "one was forgotten"


def test_a_full_memory_of_revocations_says_so() -> None:
    revocations = Revocations(LIMITS)
    for name in "ab":
        revocations.revoke_user(APP, name, NOW)
    with pytest.raises(BrokerUnavailableError, match="2 disconnects are remembered, the most that max_rev"):
        revocations.require_room(APP, NOW)


def session(*users: str, until_ms: int = NOW + 1000) -> LostSession:
    return LostSession("connection", frozenset(users), until_ms)


def test_a_lost_session_is_found_until_it_can_no_longer_be_resumed() -> None:
    lost = LostSessions(10)
    lost.add(APP, "1", session("alice", "bob"), NOW)
    lost.add(APP, "2", session("bob"), NOW)
    lost.add(OTHER_APP, "3", session("bob"), NOW)
    assert lost.of_users(APP, {"bob"}) == ["1", "2"]
    assert lost.of_users(APP, {"alice", "bob", "carol"}) == ["1", "2"]
    assert lost.of_users(APP, {"carol"}) == []
    assert lost.remove(APP, "1", NOW + 999) == session("alice", "bob")
    assert lost.remove(APP, "1", NOW) is None
    assert lost.remove(APP, "2", NOW + 1000) is None
    assert len(lost) == 1


def test_expired_sessions_and_the_oldest_beyond_the_limit_are_forgotten() -> None:
    lost = LostSessions(2)
    lost.add(APP, "1", session("alice", until_ms=NOW), NOW - 1)
    lost.add(APP, "2", session("alice"), NOW)
    assert lost.of_users(APP, {"alice"}) == ["2"]
    lost.add(APP, "3", session("alice"), NOW)
    lost.add(APP, "4", session("alice"), NOW)
    assert lost.of_users(APP, {"alice"}) == ["3", "4"]
    lost.add(APP, "3", session("bob"), NOW)
    assert lost.of_users(APP, {"alice"}) == ["4"]
    lost.add(APP, "5", session(until_ms=NOW), NOW)
    assert len(lost) == 2


def test_a_lost_session_with_several_users_counts_as_many() -> None:
    lost = LostSessions(3)
    lost.add(APP, "1", session("alice"), NOW)
    lost.add(APP, "2", session("alice", "bob"), NOW)
    assert lost.of_users(APP, {"alice"}) == ["1", "2"]
    lost.add(APP, "3", session(), NOW)
    assert lost.of_users(APP, {"alice"}) == ["2"]
    assert lost.remove(APP, "2", NOW) is not None
    lost.add(APP, "4", session("carol", "dave"), NOW)
    assert len(lost) == 2


def test_all_revocations_of_an_app_are_listed() -> None:
    revocations = Revocations(LIMITS)
    revocations.revoke_subscriber(APP, "id", NOW)
    revocations.revoke_user(APP, "alice", NOW + 1)
    revocations.revoke_user(OTHER_APP, "bob", NOW + 1)
    assert revocations.all(APP, NOW + 1) == ({"id": NOW}, {"alice": NOW + 1})
    assert revocations.all(APP, NOW + 1000 * (100 + MARGIN_S)) == ({}, {"alice": NOW + 1})
