"""The state machine of one subscriber, beside a simple model of it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tambur.protocol.messages import Direct, SetMode, Subscribe, UnsetMode, Unsubscribe
from tambur.protocol.tokens import Mode, TokenSigner
from tambur.server.session import Disable, Enable, Join, Leave, Result, Send, Session

SIGNERS = (TokenSigner("k", "a", "new"), TokenSigner("k", "a", "old"))


def make_session(max_streams: int = 3) -> Session:
    return Session("sid", SIGNERS, max_streams=max_streams, max_message_bytes=8)


def subscribed(*modes: Mode) -> Session:
    session = make_session()
    session.commit(Join("s"))
    for mode in modes:
        session.commit(Enable("s", mode, None if mode is Mode.AUTH else "u"))
    return session


TOKENS = {
    Mode.AUTH: SIGNERS[0].auth("s", "sid"),
    Mode.PRESENCE: SIGNERS[0].presence("s", "u", "sid"),
    Mode.DIRECT: SIGNERS[0].direct("s", "u", "sid"),
}


def set_mode(mode: Mode, token: str, *, stream: str = "s", user: str = "u") -> SetMode:
    return SetMode(1, mode, stream, None if mode is Mode.AUTH else user, token)


@pytest.mark.parametrize("mode", Mode)
def test_the_right_token_enables_a_mode(mode: Mode) -> None:
    user_id = None if mode is Mode.AUTH else "u"
    assert subscribed().receive(set_mode(mode, TOKENS[mode])) == Enable("s", mode, user_id)


def test_a_token_of_any_secret_is_right() -> None:
    assert subscribed().receive(set_mode(Mode.AUTH, SIGNERS[1].auth("s", "sid"))) == Enable(
        "s", Mode.AUTH, None
    )


@pytest.mark.parametrize(
    ("mode", "token"),
    [
        (Mode.AUTH, SIGNERS[0].auth("other", "sid")),
        (Mode.AUTH, SIGNERS[0].auth("s", "other")),
        (Mode.AUTH, TOKENS[Mode.PRESENCE]),
        (Mode.AUTH, TokenSigner("k", "a", "x").auth("s", "sid")),
        (Mode.AUTH, TokenSigner("k", "b", "new").auth("s", "sid")),
        (Mode.AUTH, ""),
        (Mode.AUTH, "é\ud800"),
        (Mode.PRESENCE, SIGNERS[0].presence("s", "other", "sid")),
        (Mode.PRESENCE, SIGNERS[0].presence("other", "u", "sid")),
        (Mode.PRESENCE, SIGNERS[0].presence("s", "u", "other")),
        (Mode.PRESENCE, TOKENS[Mode.DIRECT]),
        (Mode.DIRECT, TOKENS[Mode.PRESENCE]),
        (Mode.DIRECT, TOKENS[Mode.DIRECT].upper()),
    ],
)
def test_a_token_for_anything_else_is_refused(mode: Mode, token: str) -> None:
    assert subscribed().receive(set_mode(mode, token)) is Result.INVALID_TOKEN


def test_checks_come_in_the_protocols_order() -> None:
    """Stream name, subscribed or not, user id, mode on or off, token: each hides what is wrong behind it."""
    wrong = "wrong"
    assert make_session().receive(set_mode(Mode.PRESENCE, wrong, stream="auth:s", user=":")) is (
        Result.INVALID_STREAM
    )
    assert make_session().receive(set_mode(Mode.PRESENCE, wrong, user=":")) is Result.NOT_SUBSCRIBED
    enabled = subscribed(Mode.PRESENCE)
    assert enabled.receive(set_mode(Mode.PRESENCE, wrong, user=":")) is Result.INVALID_USER_ID
    assert enabled.receive(set_mode(Mode.PRESENCE, wrong)) is Result.MODE_ALREADY_ENABLED
    assert subscribed().receive(set_mode(Mode.PRESENCE, wrong)) is Result.INVALID_TOKEN
    assert make_session().receive(Direct(1, "s", ":", "x" * 9)) is Result.NOT_SUBSCRIBED
    assert subscribed().receive(Direct(1, "s", ":", "x" * 9)) is Result.INVALID_USER_ID
    assert subscribed().receive(Direct(1, "s", "v", "x" * 9)) is Result.MODE_NOT_ENABLED
    assert subscribed(Mode.DIRECT).receive(Direct(1, "s", "v", "x" * 9)) is Result.MESSAGE_TOO_LARGE


def test_a_messages_size_is_that_of_its_utf8() -> None:
    session = subscribed(Mode.DIRECT)
    assert session.receive(Direct(1, "s", "v", "é" * 4)) == Send("s", "u", "v", "é" * 4)
    assert session.receive(Direct(1, "s", "v", "é" * 4 + "x")) is Result.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("stream", ["", "private", "..", "private:x", "\n", "\ud800", "x" * 201])
def test_what_is_no_stream_is_refused(stream: str) -> None:
    for command in (Subscribe(1, stream), Unsubscribe(1, stream), UnsetMode(1, Mode.AUTH, stream)):
        assert make_session().receive(command) is Result.INVALID_STREAM


def test_nothing_happens_until_it_has_happened() -> None:
    session = make_session()
    assert session.receive(Subscribe(1, "s")) == Join("s")
    assert session.receive(Subscribe(2, "s")) == Join("s")
    session.commit(Join("s"))
    assert session.receive(Subscribe(3, "s")) is Result.ALREADY_SUBSCRIBED


class SessionMachine(RuleBasedStateMachine):
    """Any sequence of commands, their effects carried out at once."""

    streams = st.sampled_from(["s", "t", "u", "v"])
    users = st.sampled_from(["alice", "bob"])
    modes = st.sampled_from(Mode)

    def __init__(self) -> None:
        super().__init__()
        self.session = make_session()
        self.model: dict[str, dict[Mode, str | None]] = {}

    @rule(stream=streams)
    def subscribe(self, stream: str) -> None:
        answer = self.session.receive(Subscribe(1, stream))
        if stream in self.model:
            assert answer is Result.ALREADY_SUBSCRIBED
        elif len(self.model) == 3:
            assert answer is Result.TOO_MANY_STREAMS
        else:
            assert answer == Join(stream)
            self.session.commit(Join(stream))
            self.model[stream] = {}

    @rule(stream=streams)
    def unsubscribe(self, stream: str) -> None:
        answer = self.session.receive(Unsubscribe(1, stream))
        if stream not in self.model:
            assert answer is Result.NOT_SUBSCRIBED
            return
        assert answer == Leave(stream)
        self.session.commit(Leave(stream))
        del self.model[stream]

    @rule(stream=streams, mode=modes, user=users, right=st.booleans())
    def set_mode(self, stream: str, mode: Mode, user: str, right: bool) -> None:
        user_id = None if mode is Mode.AUTH else user
        token = SIGNERS[1].sign(mode, stream, "sid" if right else "other", user_id)
        answer = self.session.receive(SetMode(1, mode, stream, user_id, token))
        if stream not in self.model:
            assert answer is Result.NOT_SUBSCRIBED
        elif mode in self.model[stream]:
            assert answer is Result.MODE_ALREADY_ENABLED
        elif not right:
            assert answer is Result.INVALID_TOKEN
        else:
            effect = Enable(stream, mode, user_id)
            assert answer == effect
            self.session.commit(effect)
            self.model[stream][mode] = user_id

    @rule(stream=streams, mode=modes)
    def unset_mode(self, stream: str, mode: Mode) -> None:
        answer = self.session.receive(UnsetMode(1, mode, stream))
        if stream not in self.model:
            assert answer is Result.NOT_SUBSCRIBED
        elif mode not in self.model[stream]:
            assert answer is Result.MODE_NOT_ENABLED
        else:
            effect = Disable(stream, mode, self.model[stream].pop(mode))
            assert answer == effect
            self.session.commit(effect)

    @rule(stream=streams, to=users)
    def direct(self, stream: str, to: str) -> None:
        answer = self.session.receive(Direct(1, stream, to, "x"))
        if stream not in self.model:
            assert answer is Result.NOT_SUBSCRIBED
        elif Mode.DIRECT not in self.model[stream]:
            assert answer is Result.MODE_NOT_ENABLED
        else:
            assert answer == Send(stream, self.model[stream][Mode.DIRECT] or "", to, "x")

    @invariant()
    def the_state_is_the_models(self) -> None:
        assert {s: self.session.enabled_modes(s) for s in self.session.streams()} == self.model


TestSessionMachine = SessionMachine.TestCase
