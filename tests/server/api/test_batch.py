"""Batches: every status without a network, and what is delivered. Section 8 of the protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tambur import Tambur
from tambur.server import Limits, Server
from tambur.server.api.auth import RefusedError
from tambur.server.api.batch import MAX_MESSAGES
from tests.support.api import Api

from ...support.app import subscriber

PATH = "/app/app/batch"


def body(api: Api, messages: Any, path: str = PATH, **changes: Any) -> bytes:
    text = messages if isinstance(messages, (str, bytes)) else json.dumps(messages)
    return api.body(path=path, message=None, messages=text, **changes)


def publish(api: Api, messages: Any, path: str = PATH, **changes: Any) -> bool:
    """Returns whether nothing was delivered now."""
    return api.send(body(api, messages, path, **changes), path)


def refusal(api: Api, messages: Any, path: str = PATH, **changes: Any) -> RefusedError:
    return api.refusal_of(body(api, messages, path, **changes), path)


def test_each_message_is_delivered_in_order_by_its_destination(api: Api) -> None:
    messages = [["test", "a"], ["auth:test", "b"], ["a/b", "é & ="], ["private:an-id", ""], ["test", "c"]]
    assert publish(api, messages) is False
    assert api.messages == [
        ["test", "public", "a"],
        ["test", "auth", "b"],
        ["a/b", "public", "é & ="],
        ["private", "private", ""],
        ["test", "public", "c"],
    ]
    assert api.delivered[3].name == "an-id"


def test_characters_within_strings_are_not_limited_by_their_kind(api: Api) -> None:
    texts = ['"', "\\", '\\"', '"\\', '\\\\"[]', "[" * 100, '"' * 100, "\\" * 100] * 125
    assert publish(api, [["test", text] for text in texts]) is False
    assert [text for _, _, text in api.messages] == texts


def test_each_message_may_exclude_a_subscriber(api: Api) -> None:
    publish(api, [["test", "a", {"exclude": "an-id", "unknown": 1}], ["test", "b"], ["test", "c", {}]])
    assert [publication.excluded for publication in api.delivered] == ["an-id", None, None]


INVALID = [
    ("", 400, "messages is not JSON"),
    (b"\xff", 400, "messages is not JSON: 'utf-8' codec can't decode byte 0xff"),
    ("[" * 100_000, 400, "messages is not JSON: "),
    ("[" + "1" * 5000 + "]", 400, "messages is not JSON: "),
    (
        "[" + "[]," * 50_000 + "[]]",
        400,
        "messages has 150004 characters outside of strings, at most 128000 are",
    ),
    ("[" + '"",' * 130_000 + '""]', 400, "messages has 130002 characters outside of strings"),
    (
        '[["test","' + "\\\\" * 10 + '"]' + " " * 128_000 + "]",
        400,
        "messages has 128005 characters outside of strings",
    ),
    ("[] []", 400, "messages is not JSON: Extra data"),
    ({}, 400, 'messages must be [[STREAM, MESSAGE], ...] or [[STREAM, MESSAGE, {"exclude": SUBSCRIBER_ID}'),
    ("7", 400, "messages must be [[STREAM, MESSAGE], ...]"),
    ([], 400, "messages must be 1 to 1000, not 0"),
    ([["s", "x"]] * (MAX_MESSAGES + 1), 400, "messages must be 1 to 1000, not 1001"),
]

INVALID_MESSAGES = [
    (None, 400, "must be an array of STREAM and MESSAGE"),
    ("sx", 400, "must be an array of STREAM and MESSAGE"),
    (["s"], 400, "must be an array of STREAM and MESSAGE"),
    (["s", "x", {}, 1], 400, "must be an array of STREAM and MESSAGE"),
    ([1, "x"], 400, "the stream must be a string"),
    (["s", None], 400, "the message must be a string"),
    (["s", {"a": 1}], 400, "the message must be a string"),
    (["s", "x", None], 400, "the third element must be an object"),
    (["s", "x", "an-id"], 400, "the third element must be an object"),
    (["s", "x", {"exclude": None}], 400, "exclude must be a string"),
    (["s", "x", {"exclude": 7}], 400, "exclude must be a string"),
    (["s", "x", {"exclude": "a:b"}], 400, "a subscriber ID must not contain ':'"),
    (["s", "\ud800"], 400, "the message must not contain a lone surrogate"),
    (["\ud800", "x"], 400, "control characters or lone surrogates"),
    (["private", "x"], 400, "must not be named 'private'"),
    (["auth:", "x"], 400, "must not be empty"),
    (["s", "é" * 51], 413, "the message has 102 bytes, at most 100 are allowed"),
]


@pytest.mark.parametrize(("messages", "status", "reason"), INVALID)
def test_messages_of_another_form_are_refused(api: Api, messages: Any, status: int, reason: str) -> None:
    refused = refusal(api, messages)
    assert refused.status == status
    assert refused.reason.startswith(reason)


@pytest.mark.parametrize(("item", "status", "reason"), INVALID_MESSAGES)
def test_the_first_invalid_message_is_named_by_its_index_and_nothing_is_delivered(
    api: Api, item: Any, status: int, reason: str
) -> None:
    refused = refusal(api, [["test", "a"], ["test", "b"], item, 0])
    assert refused.status == status
    assert refused.reason.startswith("messages[2]: ")
    assert reason in refused.reason
    assert publish(api, [["test", "a"]]) is False, "the nonce was not used"


@pytest.mark.parametrize("path", ["/app/none/batch", "/app/app/batch/", "/app/app/batch/x", "/app/%FF/batch"])
def test_an_unknown_app_or_path_is_404(api: Api, path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        api.batches.target("tambur.example", path.encode())
    assert caught.value.status == 404


@pytest.mark.parametrize("count", [0, 2])
def test_messages_is_given_once(api: Api, count: int) -> None:
    sent = api.body(path=PATH, message=None) + b"&messages=[]" * count
    refused = api.refusal_of(sent, PATH)
    assert (refused.status, refused.reason) == (400, f"messages must be given once, not {count} times")


def test_nothing_is_parsed_before_the_signature_is_right(api: Api) -> None:
    assert refusal(api, "[", secret="wrong").status == 401
    assert refusal(api, "[", oauth_timestamp="1").status == 401
    assert refusal(api, "[").status == 400


def test_the_same_request_is_delivered_once(api: Api) -> None:
    sent = body(api, [["test", str(i)] for i in range(MAX_MESSAGES)])
    assert [api.send(sent, PATH) for _ in range(3)] == [False, True, True]
    assert [text for _, _, text in api.messages] == [str(i) for i in range(MAX_MESSAGES)]


def test_a_nonce_with_another_signature_is_401(api: Api) -> None:
    publish(api, [["test", "a"]])
    refused = refusal(api, [["test", "b"]])
    assert (refused.status, "used before" in refused.reason) == (401, True)
    assert api.refusal().status == 401, "a publish shares the nonces"


def test_each_message_counts_and_a_batch_may_overdraw(api: Api) -> None:
    path = "/app/slow/batch"
    assert publish(api, [["test", "a"]] * 3, path) is False
    refused = refusal(api, [["test", "b"]], path, oauth_nonce="2")
    assert refused.status == 429
    assert refused.reason == "more than 1 publishes/s"
    assert refused.retry_after_s is not None
    assert refused.retry_after_s == 3
    assert api.refusal("/app/slow/stream/test", oauth_nonce="3").status == 429
    assert publish(api, [["test", "a"]] * 3, path) is True, "a replay costs nothing"


ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["test", "auth:x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["exclude", "x"]), inner),
    max_leaves=12,
)


@settings(max_examples=20)
@given(st.binary(max_size=50) | ITEMS.map(json.dumps) | st.lists(ITEMS).map(json.dumps))
def test_any_messages_are_delivered_whole_or_refused_whole(messages: Any) -> None:
    api = Api()
    sent = body(api, messages)
    try:
        api.send(sent, PATH)
    except RefusedError as refused:
        assert refused.status in (400, 413)
        assert api.delivered == []
    else:
        assert all(isinstance(text, str) for item in json.loads(messages) for text in item[:2])


def test_a_closed_broker_is_503(api: Api) -> None:
    api.broker.deliver = None
    assert refusal(api, [["test", "a"]]).status == 503


def post(tambur: Tambur, messages: Any) -> requests.Response:
    form = {"api_version": "1.0", "messages": json.dumps(messages, ensure_ascii=False)}
    return requests.post(f"{tambur.url}/batch", data=form, auth=tambur.oauth, timeout=60)


def test_a_batch_reaches_subscribers_in_the_order_of_each_stream(
    server: Server, tambur: Tambur, stream: str
) -> None:
    with subscriber(server, stream, f"{stream}2") as one, subscriber(server, stream) as other:
        exclude = {"exclude": other.subscriber_id}
        messages = [[f"{stream}{'2' * (i % 2)}", f"é {i}", exclude] for i in range(100)]
        answer = post(tambur, [*messages, [stream, "the last"]])
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Tambur-Replayed" not in answer.headers
        received = [one.receive(60) for _ in range(101)]
        for name in (stream, f"{stream}2"):
            assert [m.text for m in received if m.stream == name][:50] == [
                text for to, text, _ in messages if to == name
            ]
        assert other.receive(60).text == "the last"


def test_the_same_request_again_says_that_it_was_replayed(
    server: Server, tambur: Tambur, stream: str
) -> None:
    request = requests.Request("POST", f"{tambur.url}/batch", auth=tambur.oauth)
    request.data = {"api_version": "1.0", "messages": json.dumps([[stream, "x"]])}
    prepared = request.prepare()
    with requests.Session() as session, subscriber(server, stream) as receiver:
        answers = [session.send(prepared) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [204, 204]
        assert [answer.headers.get("Tambur-Replayed") for answer in answers] == [None, "true"]
        tambur.publish(stream, "fence")
        assert [receiver.receive(60).text for _ in range(2)] == ["x", "fence"]


def test_a_body_over_the_limit_is_413(tambur: Tambur, stream: str) -> None:
    limits = Limits()
    text = "x" * limits.max_message_bytes
    count = limits.max_batch_bytes // limits.max_message_bytes
    assert post(tambur, [[stream, text]] * (count - 1)).status_code == 204
    answer = post(tambur, [[stream, text]] * count)
    assert (answer.status_code, answer.text) == (
        413,
        f"the body has more than {limits.max_batch_bytes} bytes\n",
    )
    answer = post(tambur, [[stream, "x"], [stream, f"{text}x"]])
    assert (answer.status_code, answer.text.startswith("messages[1]: the message has")) == (413, True)


def test_only_post_is_answered(tambur: Tambur) -> None:
    answer = requests.get(f"{tambur.url}/batch", timeout=60)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
