"""The pytest plugin, as the tests of an application use it."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from tambur import ConfigurationError, InvalidMessageError, InvalidNameError, MessageTooLargeError, Tambur
from tambur.subscriber import Message
from tambur.testing import RecordingTambur, TamburServer

pytest_plugins = ["pytester"]


def test_the_server_and_its_clients_are_real(tambur_server: TamburServer) -> None:
    news, other = tambur_server.subscriber("news"), tambur_server.subscriber("news", "other")
    news.enable_auth("news", tambur_server.publisher.generate_auth_token)
    with Tambur.from_url(tambur_server.url) as tambur:
        tambur.publish("auth:news", "admins")
        tambur.publish("news", {"a": 1})
    assert [news.receive(60) for _ in range(2)] == [
        Message("news", "auth", "admins"),
        Message("news", "public", '{"a":1}'),
    ]
    assert other.receive(60) == Message("news", "public", '{"a":1}')


def test_the_recorder_records_messages(tambur_recorder: RecordingTambur) -> None:
    assert tambur_recorder.publish("news", "é & = %") is True
    tambur_recorder.publish("auth:a/b", {"b": [1]})
    tambur_recorder.publish("private:id", b"")
    assert tambur_recorder.published == [("news", "é & = %"), ("auth:a/b", '{"b":[1]}'), ("private:id", "")]
    assert tambur_recorder.published[0].stream == "news"
    tambur_recorder.publish("news", "to the others", exclude="id")
    assert tambur_recorder.published[-1] == ("news", "to the others")
    assert [published.exclude for published in tambur_recorder.published] == [None, None, None, "id"]
    assert len(tambur_recorder.generate_auth_token("news", "id")) == 40


def test_the_recorder_refuses_what_a_publisher_and_a_server_refuse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RecordingTambur(max_message_bytes=10) as recorder, caplog.at_level(logging.DEBUG, "tambur"):
        with pytest.raises(InvalidNameError):
            recorder.publish(".", "x")
        with pytest.raises(InvalidMessageError):
            recorder.publish("news", object())
        with pytest.raises(MessageTooLargeError, match="11 bytes, at most 10") as caught:
            recorder.publish("news", "x" * 11)
        with pytest.raises(InvalidNameError):
            recorder.publish("news", "x", exclude="a:b")
        with pytest.raises(InvalidNameError):
            recorder.generate_presence_token("news", "a:b", "id")
        assert recorder.published == []
        assert recorder.publish("news", "é" * 5)
    assert (caught.value.status, caught.value.may_have_been_delivered) == (413, False)
    assert "publish to 'news': 10 bytes, 204" in caplog.text


def test_the_recorder_records_many_messages_in_order_and_refuses_those_that_a_server_refuses() -> None:
    with RecordingTambur(max_message_bytes=10) as recorder:
        pairs = [("news", "a"), (".", "b"), ("auth:news", "é" * 6), ("news", {"a": 1}), ("private:id", "c")]
        outcomes = recorder.publish_many(pairs)
        assert [o if o is True else type(o) for o in outcomes] == [
            True, InvalidNameError, MessageTooLargeError, True, True
        ]  # fmt: skip
        assert recorder.published == [("news", "a"), ("news", '{"a":1}'), ("private:id", "c")]


def test_the_fixtures_server_takes_many_messages(tambur_server: TamburServer) -> None:
    news = tambur_server.subscriber("news")
    assert tambur_server.publisher.publish_many([("news", str(i)) for i in range(3)]) == [True] * 3
    assert [news.receive(60).text for _ in range(3)] == ["0", "1", "2"]


def test_the_recorder_encodes_like_the_applications_publisher() -> None:
    with RecordingTambur(encode=repr) as recorder:
        recorder.publish("news", {"a": 1})
    assert recorder.published == [("news", "{'a': 1}")]


def test_the_recorder_answers_queries(tambur_recorder: RecordingTambur) -> None:
    assert tambur_recorder.users("room") == []
    assert list(tambur_recorder.streams()) == []
    tambur_recorder.present |= {"room": ["bob", "alice"], "other": ["bob"], "empty": []}
    assert tambur_recorder.users("room") == ["alice", "bob"]
    assert list(tambur_recorder.streams()) == [("other", 1, 1), ("room", 2, 2)]
    assert list(tambur_recorder.streams("ro")) == [("room", 2, 2)]
    with pytest.raises(InvalidNameError):
        tambur_recorder.users("auth:room")


def test_the_recorder_keeps_a_history(tambur_recorder: RecordingTambur) -> None:
    start = tambur_recorder.history("room")
    assert (start.messages, start.complete, start.more) == ([], True, False)
    for i in range(4):
        tambur_recorder.publish("auth:room" if i == 1 else "room", str(i))
        tambur_recorder.publish("other", "x")
    newest = tambur_recorder.history("room", limit=3)
    assert [(m.kind, m.message) for m in newest.messages] == [("auth", "1"), ("public", "2"), ("public", "3")]
    assert newest.more is True
    some = tambur_recorder.history("room", limit=2, since=start.position)
    assert ([m.message for m in some.messages], some.more) == (["0", "1"], True)
    rest = tambur_recorder.history("room", since=some.position)
    assert ([m.message for m in rest.messages], rest.more, rest.complete) == (["2", "3"], False, True)
    assert tambur_recorder.history("room", since=rest.position).messages == []
    assert tambur_recorder.history("room", since="elsewhere").complete is False
    with pytest.raises(ConfigurationError, match="limit must be"):
        tambur_recorder.history("room", limit=0)


def test_the_recorder_records_disconnects(tambur_recorder: RecordingTambur) -> None:
    tambur_recorder.present["room"] = ["alice", "bob"]
    assert tambur_recorder.disconnect(user_id="alice") == 1
    assert tambur_recorder.disconnect(subscriber_id="id") == 0
    assert tambur_recorder.users("room") == ["bob"]
    assert tambur_recorder.disconnected == [(None, "alice"), ("id", None)]
    assert tambur_recorder.disconnected[0].user_id == "alice"
    with pytest.raises(ConfigurationError, match="exactly one"):
        tambur_recorder.disconnect()


def test_the_server_of_a_test_answers_queries(tambur_server: TamburServer) -> None:
    room = tambur_server.subscriber("room")
    room.enable_presence("room", "alice", tambur_server.publisher.generate_presence_token)
    tambur_server.publisher.publish("room", "kept")
    assert tambur_server.publisher.users("room") == ["alice"]
    assert list(tambur_server.publisher.streams()) == [("room", 1, 1)]
    assert [m.message for m in tambur_server.publisher.history("room").messages] == ["kept"]
    assert tambur_server.publisher.disconnect(user_id="alice") == 1
    assert tambur_server.publisher.users("room") == []


def test_the_installed_package_brings_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        assert "tambur.server" not in sys.modules  # no fixture needs it yet


        def test_publish(tambur_recorder):
            tambur_recorder.publish("news", "x")
            assert "tambur.server" not in sys.modules


        def test_real(tambur_server, monkeypatch):
            from tambur import Tambur

            monkeypatch.setenv("TAMBUR_URL", tambur_server.url)
            page = tambur_server.subscriber("news")
            Tambur.from_env().publish("news", "x")
            assert page.receive(60).text == "x"


        def test_afterwards(tambur_server):
            tambur_server.subscriber()
        """
    )
    others = ("cacheprovider", "hypothesispytest", "anyio", "xdist", "requests_mock", "timeout")
    pytester.runpytest_subprocess(*[f"-pno:{other}" for other in others]).assert_outcomes(passed=3)


def test_tests_with_unittest_need_no_pytest() -> None:
    program = """
import sys

sys.modules["pytest"] = None
from tambur.testing import *

with RecordingTambur() as recorder:
    recorder.publish("news", make_webhook("whsec_" + 32 * "A", "user.left", "s", "u").headers["webhook-id"][:4])
assert recorder.published == [("news", "msg_")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
