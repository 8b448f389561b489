"""The state machine of one connection, beside a simple model of it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tambur.protocol.messages import Direct, Hello, SetMode, Subscribe, UnsetMode, Unsubscribe
from tambur.protocol.options import AsUser, HelloOptions, SubscribeOptions
from tambur.protocol.tokens import Mode, TokenSigner
from tambur.server.subscriptions import Result, Subscriptions

SIGNERS = (TokenSigner("k", "a", "new"), TokenSigner("k", "a", "old"))


def make(max_streams: int = 3) -> Subscriptions:
    return Subscriptions("sid", SIGNERS, max_streams=max_streams, max_message_bytes=8)


def subscribed(*modes: Mode) -> Subscriptions:
    """Subscribed to the stream ``s``, with some modes."""
    subscriptions = make()
    subscriptions.commit(Subscribe(1, "s"))
    for mode in modes:
        subscriptions.commit(set_mode(mode, "checked before"))
    return subscriptions


TOKENS = {
    Mode.AUTH: SIGNERS[0].auth("s", "sid"),
    Mode.PRESENCE: SIGNERS[0].presence("s", "u", "sid"),
    Mode.DIRECT: SIGNERS[0].direct("s", "u", "sid"),
}


def set_mode(mode: Mode, token: str, *, stream: str = "s", user: str = "u") -> SetMode:
    return SetMode(1, mode, stream, None if mode is Mode.AUTH else user, token)


@pytest.mark.parametrize("mode", Mode)
def test_the_right_token_enables_a_mode_for_its_user(mode: Mode) -> None:
    subscriptions = subscribed()
    command = set_mode(mode, TOKENS[mode])
    assert subscriptions.check(command) is Result.OK
    subscriptions.commit(command)
    assert subscriptions.modes("s") == {mode: None if mode is Mode.AUTH else "u"}


def test_a_token_of_any_secret_is_right() -> None:
    assert subscribed().check(set_mode(Mode.AUTH, SIGNERS[1].auth("s", "sid"))) is Result.OK


WRONG_TOKENS = [
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
]


@pytest.mark.parametrize(("mode", "token"), WRONG_TOKENS)
def test_a_token_for_anything_else_is_refused(mode: Mode, token: str) -> None:
    assert subscribed().check(set_mode(mode, token)) is Result.INVALID_TOKEN


def test_checks_come_in_the_order_of_the_protocol() -> None:
    """Stream name, subscribed or not, user ID, mode enabled or not, token: each hides later mistakes."""
    wrong = "wrong"
    assert make().check(set_mode(Mode.PRESENCE, wrong, stream="auth:s", user=":")) is Result.INVALID_STREAM
    assert make().check(set_mode(Mode.PRESENCE, wrong, user=":")) is Result.NOT_SUBSCRIBED
    enabled = subscribed(Mode.PRESENCE)
    assert enabled.check(set_mode(Mode.PRESENCE, wrong, user=":")) is Result.INVALID_USER_ID
    assert enabled.check(set_mode(Mode.PRESENCE, wrong)) is Result.MODE_ALREADY_ENABLED
    assert subscribed().check(set_mode(Mode.PRESENCE, wrong)) is Result.INVALID_TOKEN
    assert make().check(Direct(1, "s", ":", "x" * 9)) is Result.NOT_SUBSCRIBED
    assert subscribed().check(Direct(1, "s", ":", "x" * 9)) is Result.INVALID_USER_ID
    assert subscribed().check(Direct(1, "s", "v", "x" * 9)) is Result.MODE_NOT_ENABLED
    assert subscribed(Mode.DIRECT).check(Direct(1, "s", "v", "x" * 9)) is Result.MESSAGE_TOO_LARGE


def test_the_size_of_a_message_is_that_of_its_utf8() -> None:
    subscriptions = subscribed(Mode.DIRECT)
    assert subscriptions.check(Direct(1, "s", "v", "é" * 4)) is Result.OK
    assert subscriptions.check(Direct(1, "s", "v", "é" * 4 + "x")) is Result.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("stream", ["", "private", "..", "private:x", "\n", "\ud800", "x" * 201])
def test_an_invalid_stream_is_refused(stream: str) -> None:
    for command in (Subscribe(1, stream), Unsubscribe(1, stream), UnsetMode(1, Mode.AUTH, stream)):
        assert make().check(command) is Result.INVALID_STREAM


def test_only_a_commit_changes_the_state() -> None:
    subscriptions = make()
    assert subscriptions.check(Subscribe(1, "s")) is Result.OK
    assert subscriptions.check(Subscribe(2, "s")) is Result.OK
    subscriptions.commit(Subscribe(1, "s"))
    assert subscriptions.check(Subscribe(3, "s")) is Result.ALREADY_SUBSCRIBED


def test_subscribing_with_tokens_enables_their_modes_or_changes_nothing() -> None:
    right = SubscribeOptions(
        auth=TOKENS[Mode.AUTH],
        presence=AsUser("u", TOKENS[Mode.PRESENCE]),
        direct=AsUser("u", TOKENS[Mode.DIRECT]),
    )
    subscriptions = make()
    for wrong in (
        right._replace(auth="wrong"),
        right._replace(presence=AsUser("other", TOKENS[Mode.PRESENCE])),
        right._replace(direct=AsUser("u", TOKENS[Mode.PRESENCE])),
    ):
        assert subscriptions.check(Subscribe(1, "s", wrong)) is Result.INVALID_TOKEN
    assert subscriptions.check(Subscribe(1, "s", None)) is Result.INVALID_OPTIONS
    assert subscriptions.check(Subscribe(1, "s", right)) is Result.OK
    subscriptions.commit(Subscribe(1, "s", right))
    assert subscriptions.modes("s") == {Mode.AUTH: None, Mode.PRESENCE: "u", Mode.DIRECT: "u"}
    assert subscriptions.check(Subscribe(1, "s", None)) is Result.ALREADY_SUBSCRIBED


def test_a_hello_is_the_first_command_and_the_only_one() -> None:
    hello = Hello(1, HelloOptions())
    subscriptions = make()
    assert subscriptions.check(Hello(1, None)) is Result.INVALID_OPTIONS
    assert subscriptions.check(hello) is Result.OK
    assert subscriptions.check(hello) is Result.OK  # the broker could not be reached
    subscriptions.commit(hello)
    assert subscriptions.is_extended
    assert subscriptions.check(hello) is Result.INVALID_HELLO
    late = make()
    assert late.check(Unsubscribe(1, "s")) is Result.NOT_SUBSCRIBED
    assert late.check(hello) is late.check(Hello(1, None)) is Result.INVALID_HELLO


class SubscriptionsMachine(RuleBasedStateMachine):
    """Any sequence of commands; each valid one takes effect immediately."""

    streams = st.sampled_from(["s", "t", "u", "v"])
    users = st.sampled_from(["alice", "bob"])
    modes = st.sampled_from(Mode)

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions = make()
        self.model: dict[str, dict[Mode, str | None]] = {}

    @rule(stream=streams)
    def subscribe(self, stream: str) -> None:
        command = Subscribe(1, stream)
        result = self.subscriptions.check(command)
        if stream in self.model:
            assert result is Result.ALREADY_SUBSCRIBED
        elif len(self.model) == 3:
            assert result is Result.TOO_MANY_STREAMS
        else:
            assert result is Result.OK
            self.subscriptions.commit(command)
            self.model[stream] = {}

    @rule(stream=streams)
    def unsubscribe(self, stream: str) -> None:
        command = Unsubscribe(1, stream)
        result = self.subscriptions.check(command)
        if stream not in self.model:
            assert result is Result.NOT_SUBSCRIBED
            return
        assert result is Result.OK
        self.subscriptions.commit(command)
        del self.model[stream]

    @rule(stream=streams, mode=modes, user=users, right=st.booleans())
    def set_mode(self, stream: str, mode: Mode, user: str, right: bool) -> None:
        user_id = None if mode is Mode.AUTH else user
        token = SIGNERS[1].sign(mode, stream, "sid" if right else "other", user_id)
        command = SetMode(1, mode, stream, user_id, token)
        result = self.subscriptions.check(command)
        if stream not in self.model:
            assert result is Result.NOT_SUBSCRIBED
        elif mode in self.model[stream]:
            assert result is Result.MODE_ALREADY_ENABLED
        elif not right:
            assert result is Result.INVALID_TOKEN
        else:
            assert result is Result.OK
            self.subscriptions.commit(command)
            self.model[stream][mode] = user_id

    @rule(stream=streams, mode=modes)
    def unset_mode(self, stream: str, mode: Mode) -> None:
        command = UnsetMode(1, mode, stream)
        result = self.subscriptions.check(command)
        if stream not in self.model:
            assert result is Result.NOT_SUBSCRIBED
        elif mode not in self.model[stream]:
            assert result is Result.MODE_NOT_ENABLED
        else:
            assert result is Result.OK
            self.subscriptions.commit(command)
            del self.model[stream][mode]

    @rule(stream=streams, to=users)
    def direct(self, stream: str, to: str) -> None:
        command = Direct(1, stream, to, "x")
        result = self.subscriptions.check(command)
        if stream not in self.model:
            assert result is Result.NOT_SUBSCRIBED
        elif Mode.DIRECT not in self.model[stream]:
            assert result is Result.MODE_NOT_ENABLED
        else:
            assert result is Result.OK
            self.subscriptions.commit(command)

    @invariant()
    def the_state_is_that_of_the_model(self) -> None:
        assert {stream: self.subscriptions.modes(stream) for stream in self.subscriptions} == self.model


TestSubscriptionsMachine = SubscriptionsMachine.TestCase
