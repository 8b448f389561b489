"""Signatures, tested with the example of RFC 5849 and against oauthlib."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes

import oauthlib.oauth1
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tambur import Tambur
from tambur.protocol import oauth as signing
from tambur.protocol.paths import split_publish_path

from ..support.strategies import credential_names, secrets, streams

Test = TypeVar("Test", bound=Callable[..., None])

# oauthlib decodes an api_key that looks percent-encoded, although RFC 5849 does not say so.
api_keys = credential_names.filter(lambda key: unquote(key) == key)
messages = st.text(st.characters(exclude_categories=["Cs"]))
HARD = ["", "x" * 65536, "é" * 32768, "%", "+", "~", "a b", "&=", "\r\n", "🥁", "%2B", '{"a": [1]}']


def with_hard_messages(test: Test) -> Test:
    for message in HARD:
        test = example("key", "app", "secret", "test", message)(test)
    return test


def base_string(url: str, body: bytes) -> str:
    parameters = [p for p in signing.parse_form(body) if p[0] != b"oauth_signature"]
    return signing.signature_base_string(
        signing.base_string_url(url), signing.canonical_query_string(parameters)
    )


class Validator(oauthlib.oauth1.RequestValidator):
    """A server for oauthlib, with one key and its secret, which accepts any time and nonce."""

    enforce_ssl = False
    timestamp_lifetime = 10**12
    dummy_client = "dummy"

    def __init__(self, api_key: str, secret: str) -> None:
        super().__init__()
        self.api_key = api_key
        self.secret = secret

    def accepts(self, url: str | None, body: str) -> bool:
        endpoint = oauthlib.oauth1.SignatureOnlyEndpoint(self)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return bool(endpoint.validate_request(url, "POST", body, headers)[0])

    def check_client_key(self, client_key: str) -> bool:
        return True

    def check_nonce(self, nonce: str) -> bool:
        return True

    def validate_timestamp_and_nonce(self, *args: object, **kwargs: object) -> bool:
        return True

    def validate_client_key(self, client_key: str, request: object) -> bool:
        return client_key == self.api_key

    def get_client_secret(self, client_key: str, request: object) -> str:
        return self.secret


def test_the_base_string_of_the_rfc() -> None:
    """Section 3.4.1.1, with the parameters of section 3.4.1.3.1 from the query, the header and the body."""
    parameters = [
        ("b5", "=%3D"),
        ("a3", "a"),
        ("c@", ""),
        ("a2", "r b"),
        ("oauth_consumer_key", "9djdj82h48djs9d2"),
        ("oauth_token", "kkk9d7dh3k39sjv7"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131201"),
        ("oauth_nonce", "7d8f3e4a"),
        ("c2", ""),
        ("a3", "2 q"),
    ]
    url = signing.base_string_url("http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b")
    assert signing.signature_base_string(url, signing.canonical_query_string(parameters)) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D"
        "%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a"
        "%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )


def test_the_form_of_the_rfc_is_parsed() -> None:
    assert signing.parse_form(b"c2&a3=2+q") == [(b"c2", b""), (b"a3", b"2 q")]


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("HTTP://Example.com:80/R%20v/X?id=123", "http://example.com/R%20v/X"),
        ("https://www.example.net:8080/?q=1", "https://www.example.net:8080/"),
        ("https://h:443/a", "https://h/a"),
        ("http://h:443/a", "http://h:443/a"),
        ("http://[::1]:80/a", "http://[::1]/a"),
        ("http://h/a:80", "http://h/a:80"),
        ("http://h/%c3%A9//b/../c", "http://h/%c3%A9//b/../c"),
    ],
)
def test_the_url_that_is_signed(url: str, signed: str) -> None:
    """Section 3.4.1.2, with its two examples. The path is not normalized."""
    assert signing.base_string_url(url) == signed


@settings(max_examples=3 * settings().max_examples)
@with_hard_messages
@given(api_keys, credential_names, secrets, streams, messages)
def test_oauthlib_accepts_what_we_sign(
    api_key: str, app_id: str, secret: str, stream: str, message: str
) -> None:
    with Tambur(api_key, app_id, secret, "127.0.0.1:8080") as tambur:
        prepared = tambur.build_request(stream, message, 1353628800, "nonce")
    assert isinstance(prepared.body, str)
    values = dict(parse_qsl(prepared.body, keep_blank_values=True, strict_parsing=True))
    assert values["message"] == message
    assert values["oauth_consumer_key"] == api_key
    validator = Validator(api_key, secret)
    assert validator.accepts(prepared.url, prepared.body)
    assert not validator.accepts(f"{prepared.url}x", prepared.body)
    assert not validator.accepts(prepared.url, prepared.body.replace("message=", "message=x"))
    assert not Validator(api_key, f"{secret}x").accepts(prepared.url, prepared.body)


@settings(max_examples=3 * settings().max_examples)
@with_hard_messages
@given(api_keys, credential_names, secrets, streams, messages)
def test_we_accept_what_oauthlib_signs(
    api_key: str, app_id: str, secret: str, stream: str, message: str
) -> None:
    url = f"http://127.0.0.1:8080/app/{quote(app_id, safe='')}/stream/{quote(stream, safe='')}"
    client = oauthlib.oauth1.Client(api_key, secret, signature_type=oauthlib.oauth1.SIGNATURE_TYPE_BODY)
    _, _, body = client.sign(
        url,
        "POST",
        {"api_version": "1.0", "message": message},
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    sent = body.encode() if isinstance(body, str) else body
    signature = dict(signing.parse_form(sent))[b"oauth_signature"]
    assert dict(signing.parse_form(sent))[b"message"] == message.encode()
    assert signing.verify(base_string(url, sent), [], secret, signature)
    assert not signing.verify(base_string(url, sent), [], secret + "x", signature)
    split = split_publish_path(url.removeprefix("http://127.0.0.1:8080").encode())
    assert split == (app_id, stream.encode())


FOREIGN = (
    b'api_version=1.0&message={"a": "%s"}&oauth_nonce=%%ff%%00\xfe&oauth_timestamp=1&oauth_version=1.0'
    b"&oauth_signature_method=HMAC-SHA1&oauth_consumer_key=k" % "déjà+vu%20~".encode()
)


def test_bodies_that_other_clients_send_have_one_base_string() -> None:
    """Any order, a space as ``+`` or ``%20``, raw or encoded bytes, a nonce that is not UTF-8."""
    url = "http://h/app/a/stream/s"
    expected = base_string(url, FOREIGN)
    assert "%25FF%2500%25FE" in expected
    fields = FOREIGN.split(b"&")
    for seed in range(20):
        random.Random(seed).shuffle(fields)
        assert base_string(url, b"&".join(fields)) == expected
    assert (
        base_string(url, FOREIGN.replace(b"+", b"%20").replace(b"{", b"%7b").replace(b"~", b"%7e"))
        == expected
    )
    encoded = b"&".join(
        quote(name).encode() + b"=" + quote(value, safe="").encode()
        for name, value in signing.parse_form(FOREIGN)
    )
    assert base_string(url, encoded) == expected


def rest_of(form: bytes) -> bytes:
    """The rest of the base string of a form, made from its decoded parameters."""
    signed = [p for p in signing.parse_form(form) if p[0] != b"oauth_signature"]
    return b"".join(signing.base_string_rest(signed))


# Parts of a form that is encoded as it is signed, and parts that it does not contain.
near_forms = st.lists(
    st.sampled_from(
        [
            b"&",
            b"=",
            b"a",
            b"-",
            b"~",
            b"%20",
            b"%41",
            b"%2a",
            b"%2",
            b"%",
            b"+",
            b"\0",
            b"oauth_signature",
            b"/",
        ]
    )
).map(b"".join)


@settings(max_examples=5 * settings().max_examples)
@example(b"a=1&oauth_signature=s&a-b=2&a%20b=3&a=0")
@example(b"oauth_signature=s&oauth_signature=t&oauth_signature_method=m")
@example(b"a&b=c=d")
@example(b"a==&b")
@given(near_forms)
def test_the_base_string_of_a_form_is_that_of_its_parameters(form: bytes) -> None:
    signed = [p for p in signing.parse_form(form) if p[0] != b"oauth_signature"]
    assert b"".join(signing.base_string_rest(signed, form)) == rest_of(form)


@given(st.lists(st.tuples(st.binary(), st.binary()), min_size=1), st.randoms())
def test_a_form_that_is_sent_as_it_is_signed_is_not_encoded_again(
    parameters: list[tuple[bytes, bytes]], random_: random.Random
) -> None:
    fields = signing.canonical_query_string(parameters).encode().split(b"&")
    fields.append(b"oauth_signature=c2ln")
    random_.shuffle(fields)
    form = b"&".join(fields)
    assert list(signing.base_string_rest([], form)) == [rest_of(form)]


def test_escapes_that_the_rfc_does_not_write_are_encoded_again() -> None:
    for byte in range(256):
        written = signing.percent_encode(bytes([byte])).encode()
        for escape in {b"%%%02X" % byte, b"%%%02x" % byte, bytes([byte]), written}:
            found = list(signing.base_string_rest([], b"a=" + escape))
            assert (found == [rest_of(b"a=" + escape)]) is (escape == written), escape


# Bytes that percent-encoding or quoted-printable could take for a part of an escape.
near_escapes = st.lists(
    st.sampled_from([b"%", b"4", b"a", b"F", b"g", b"=", b"+", b"\r", b"\n", b" ", b"\xff"])
)


@settings(max_examples=5 * settings().max_examples)
@example([b"%"] * 5000)
@example([b"=", b"\n"])
@given(near_escapes)
def test_decoding_leaves_alone_every_percent_sign_without_two_digits(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert signing.percent_decode(data) == unquote_to_bytes(data)


@pytest.mark.parametrize("pattern", [b"%41", b"%4", b"%", b"a%4", b"%%41", b"x%e9="])
@pytest.mark.parametrize("first", range(4))
def test_large_data_is_decoded_and_encoded_as_small(pattern: bytes, first: int) -> None:
    """It is worked on in chunks, none of which may end within an escape."""
    data = b"x" * first + pattern * (100_000 // len(pattern))
    decoded = signing.percent_decode(data)
    assert decoded == unquote_to_bytes(data)
    assert signing.percent_encode(decoded) == quote(decoded, safe="")
    parts = signing.base_string_rest([(b"m", decoded)])
    assert b"".join(parts).decode() == f"m%3D{quote(quote(decoded, safe=''))}"


@given(st.binary())
def test_encoding_keeps_unreserved_bytes_alone(data: bytes) -> None:
    assert signing.percent_encode(data) == quote(data, safe="")


@given(st.lists(st.tuples(st.binary(), st.binary())))
def test_the_rest_of_a_base_string_is_the_canonical_query_string_encoded(
    parameters: list[tuple[bytes, bytes]],
) -> None:
    canonical = signing.canonical_query_string(parameters)
    start, rest = signing.base_string_start("http://h/a"), list(signing.base_string_rest(parameters))
    assert b"".join(rest).decode() == signing.percent_encode(canonical)
    whole = signing.signature_base_string("http://h/a", canonical)
    assert start + b"".join(rest).decode() == whole
    signature = signing.sign(whole, "secret").encode()
    assert signing.verify(start, rest, "secret", signature)
    assert not signing.verify(start, rest, "other", signature)
    assert not signing.verify("POST&", rest, "secret", signature)


@pytest.mark.parametrize(
    "pattern", [b"%", b"a%", b"%a", b"%41", b"%41a", b"+", b"=", b"\xff", b"%41" * 5000 + b"%"]
)
def test_no_content_is_much_slower_than_another(pattern: bytes) -> None:
    """CPU time, of bodies of one length. A loop over the bytes takes 50 times as long for some as for others."""

    def cpu_s(pattern: bytes) -> float:
        body = b"message=" + pattern * (300_000 // len(pattern))
        started = time.process_time()
        for _ in range(3):
            list(signing.base_string_rest(signing.parse_form(body), body))
        return time.process_time() - started

    assert min(cpu_s(pattern) for _ in range(3)) < 4 * min(cpu_s(b"%20") for _ in range(3))


@given(st.binary())
def test_any_bytes_are_a_form(body: bytes) -> None:
    for name, value in signing.parse_form(body):
        assert isinstance(name, bytes)
        assert isinstance(value, bytes)
    base_string("http://h/", body)


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary())))
def test_a_canonical_query_string_decodes_to_its_parameters(parameters: list[tuple[bytes, bytes]]) -> None:
    canonical = signing.canonical_query_string(parameters)
    assert sorted(signing.parse_form(canonical.encode("ascii"))) == sorted(parameters)


@pytest.mark.parametrize("signature", [b"", b"x", b"\xff", "é".encode()])
def test_other_bytes_are_not_a_signature(signature: bytes) -> None:
    assert not signing.verify("POST&&", [], "secret", signature)
