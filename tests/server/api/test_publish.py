"""Publishing, without a network: every status of a publish, in the order of the checks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import NOW, Api


def test_a_signed_message_is_delivered(api: Api) -> None:
    assert api.publish() is False
    assert api.messages == [["test", "public", "Hello"]]


def test_each_destination_has_its_kind(api: Api) -> None:
    api.publish("/app/app/stream/auth:test")
    api.publish("/app/app/stream/private:an-id", oauth_nonce="2")
    assert api.messages == [["test", "auth", "Hello"], ["private", "private", "Hello"]]
    assert api.delivered[1].name == "an-id"


@pytest.mark.parametrize(
    "path", ["/", "/app", "/app/app", "/app/app/stream", "/app/other/stream/test", "/app/%FF/stream/x"]
)
def test_an_unknown_app_or_path_is_404(api: Api, path: str) -> None:
    assert api.refusal(path).status == 404


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ("%FF", "the stream is not UTF-8"),
        ("", "must not be empty"),
        ("private", "must not be named"),
        ("auth:", "must not be empty"),
        ("auth:auth:x", "must not begin"),
        ("private:a:b", "must not contain ':'"),
        ("a%0Ab", "control characters"),
        ("..", "must not be named"),
    ],
)
def test_an_invalid_stream_is_400(api: Api, stream: str, reason: str) -> None:
    refused = api.refusal(f"/app/app/stream/{stream}")
    assert refused.status == 400
    assert reason in refused.reason


def test_a_publish_may_exclude_a_subscriber(api: Api) -> None:
    api.publish(exclude="an-id")
    api.publish(oauth_nonce="2")
    assert [publication.excluded for publication in api.delivered] == ["an-id", None]
    body = api.body(exclude="an-id", oauth_nonce="3")
    assert api.refusal_of(body.replace(b"an-id", b"other")).status == 401, "it is signed"


@pytest.mark.parametrize(
    ("exclude", "reason"),
    [
        ("", "exclude is invalid: a subscriber ID must not be empty"),
        ("a:b", "exclude is invalid: a subscriber ID must not contain ':'"),
        ("a\n", "control characters"),
        ("x" * 201, "at most 200 characters, not 201"),
        (b"\xff", "exclude is invalid: a subscriber ID must be UTF-8"),
    ],
)
def test_an_invalid_excluded_id_is_400(api: Api, exclude: str | bytes, reason: str) -> None:
    refused = api.refusal(exclude=exclude)
    assert refused.status == 400
    assert reason in refused.reason


def test_two_excluded_ids_are_400(api: Api) -> None:
    refused = api.refusal_of(api.body(exclude="a") + b"&exclude=b")
    assert (refused.status, refused.reason) == (400, "exclude must be given at most once, not 2 times")


def test_the_same_request_is_delivered_once(api: Api) -> None:
    body = api.body()
    assert [api.send(body) for _ in range(3)] == [False, True, True]
    assert len(api.delivered) == 1


def test_a_nonce_with_another_signature_is_401(api: Api) -> None:
    api.publish()
    refused = api.refusal(message="Other")
    assert refused.status == 401
    assert "used before" in refused.reason
    assert api.refusal(message="x" * 101).status == 401, "before it is measured"


def test_nonces_belong_to_an_app(api: Api) -> None:
    api.publish()
    assert api.publish(oauth_consumer_key="key2", secret="hunter3") is False
    assert api.publish("/app/slow/stream/test") is False


def test_a_long_message_is_413(api: Api) -> None:
    refused = api.refusal(message="é" * 51)
    assert (refused.status, refused.reason) == (413, "the message has 102 bytes, at most 100 are allowed")
    assert api.publish(message="é" * 50) is False


def test_more_than_the_rate_is_429_and_claims_nothing(api: Api) -> None:
    path = "/app/slow/stream/test"
    api.publish(path)
    body = api.body(path=path, oauth_nonce="2")
    refused = api.refusal_of(body, path)
    assert refused.status == 429
    assert refused.retry_after_s is not None
    assert 0 < refused.retry_after_s <= 1
    assert api.publish(path) is True, "a replay costs nothing"


def test_no_room_for_another_claim_is_503(api: Api) -> None:
    for i in range(8):
        api.publish(oauth_nonce=str(i))
    body = api.body(oauth_nonce="one more")
    refused = api.refusal_of(body)
    assert (refused.status, refused.retry_after_s) == (503, 301)
    api.now += 301
    assert api.refusal_of(body).status == 401, "by then the request is too old"
    assert api.publish(oauth_timestamp=str(NOW + 301)) is False


def test_checks_come_in_the_protocols_order(api: Api) -> None:
    """Each request is wrong in all that is checked later, too."""
    path = "/app/slow/stream/test"
    api.publish(path, oauth_nonce="uses up the rate")
    wrong: dict[str, Any] = {
        "message": "x" * 101,
        "oauth_nonce": "uses up the rate",
        "oauth_timestamp": "0",
        "secret": "wrong",
        "oauth_consumer_key": "other",
        "api_version": "2.0",
    }

    def refusal() -> tuple[int, str]:
        refused = api.refusal(path, **wrong)
        return refused.status, refused.reason

    assert api.refusal("/app/none/stream/test", **wrong).status == 404
    assert refusal() == (400, "api_version must be 1.0, not '2.0'")
    del wrong["api_version"]
    assert refusal() == (401, "the app 'slow' has no such key (oauth_consumer_key)")
    del wrong["oauth_consumer_key"]
    assert "wrong signature" in refusal()[1]
    del wrong["secret"]
    assert "behind the server's clock" in refusal()[1]
    del wrong["oauth_timestamp"]
    assert refusal() == (401, "oauth_nonce was used before, in a request with another signature")
    del wrong["oauth_nonce"]
    assert refusal()[0] == 413
    del wrong["message"]
    assert refusal()[0] == 429


@pytest.mark.parametrize("path", ["/app/app/stream/a/b", "/app/app/stream/a%2Fb", "/app/app/stream/a%2fb"])
def test_a_bare_slash_and_an_encoded_one_are_the_same_stream(api: Api, path: str) -> None:
    api.publish(path)
    assert api.messages == [["a/b", "public", "Hello"]]
