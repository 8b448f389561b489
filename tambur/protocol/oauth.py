"""OAuth 1.0a signatures (RFC 5849) with HMAC-SHA1 and without a token: one function for each step.

Received parameters stay bytes, since the nonces of other clients contain bytes that are not UTF-8.
"""

from __future__ import annotations

import binascii
import functools
import hmac
import re
import string
from bisect import bisect_left
from collections.abc import Iterable, Iterator

_UNRESERVED = (string.ascii_letters + string.digits + "-._~").encode()
_HEX_DIGITS = b"0123456789ABCDEF"

# Looking for bytes in bytes takes longer: Python tries them as a number first.
_PERCENT = ord("%")

# The kernel clears the memory of larger buffers each time, which takes as long as the work itself.
_CHUNK_BYTES = 16 * 1024

# A form up to this size is checked in one step, whatever it contains.
_SMALL_BYTES = 4 * 1024

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _columns(escape: str) -> list[bytes]:
    """One table for each character that stands for an encoded byte.

    An unreserved byte is itself in the last column, and NUL in the others.
    """
    first = [bytes(0 if byte in _UNRESERVED else c for byte in range(256)) for c in escape.encode()]
    high = bytes(0 if byte in _UNRESERVED else _HEX_DIGITS[byte >> 4] for byte in range(256))
    low = bytes(byte if byte in _UNRESERVED else _HEX_DIGITS[byte & 15] for byte in range(256))
    return [*first, high, low]


_ONCE = _columns("%")
_TWICE = _columns("%25")


def percent_encode(text: str | bytes) -> str:
    """Encode everything except RFC 3986's unreserved characters, text as UTF-8 (RFC 5849 section 3.6).

    The time depends on the length only, not on the content.
    """
    return _encode(_bytes(text), _ONCE).decode()


def percent_encoded_bytes(data: bytes) -> int:
    """The length of the result of :func:`percent_encode`."""
    return len(data) + 2 * len(data.translate(None, delete=_UNRESERVED))


def _encode(data: bytes, columns: list[bytes]) -> bytes | bytearray:
    if not data.translate(None, delete=_UNRESERVED):
        return data
    if len(data) > _CHUNK_BYTES:
        return b"".join(
            [_encode(data[i : i + _CHUNK_BYTES], columns) for i in range(0, len(data), _CHUNK_BYTES)]
        )
    width = len(columns)
    encoded = bytearray(width * len(data))
    for i, column in enumerate(columns):
        encoded[i::width] = data.translate(column)
    return encoded.translate(None, delete=b"\0")


# 2 for "%", 1 for a hexadecimal digit, otherwise 0.
_ESCAPE_PARTS = bytes(2 * (byte == _PERCENT) + (chr(byte) in string.hexdigits) for byte in range(256))

_BARE_PERCENT = re.compile(b"%(?![0-9A-Fa-f]{2})")


def percent_decode(data: bytes) -> bytes:
    """Decode each ``%`` that two hexadecimal digits follow; any other ``%`` stays as it is.

    The time depends on the length only, not on the content: a loop over a large body of ``%`` would hold up
    a server for 50 times as long.
    """
    if _PERCENT not in data:
        return data
    if len(data) > _CHUNK_BYTES:
        return b"".join(map(percent_decode, _between_escapes(data)))
    data = data.replace(b"=", b"%3D")
    # C code decodes quoted-printable, which has the same escapes after "=". No other "=" is left here.
    if not _BARE_PERCENT.search(data):
        return binascii.a2b_qp(data.replace(b"%", b"="))
    # Each number has a byte for each byte of the data, so shifting it by 8 looks at the next byte.
    kinds = int.from_bytes(data.translate(_ESCAPE_PARTS), "big")
    escapes = (kinds >> 1) & (kinds << 8) & (kinds << 16)
    quoted = int.from_bytes(data, "big") ^ escapes * (_PERCENT ^ ord("="))
    return binascii.a2b_qp(quoted.to_bytes(len(data), "big"))


def _between_escapes(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + _CHUNK_BYTES
        if (cut := data.rfind(b"%", end - 2, end)) > 0:
            end = cut
        yield data[start:end]
        start = end


def parse_form(body: bytes) -> list[tuple[bytes, bytes]]:
    """Decode an ``application/x-www-form-urlencoded`` body into names and values, as bytes.

    Bytes that are not percent-encoded stand for themselves; ``+`` is a space.
    """
    pairs = []
    for field in body.replace(b"+", b" ").split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            if _PERCENT in field:
                name, value = percent_decode(name), percent_decode(value)
            pairs.append((name, value))
    return pairs


def canonical_query_string(parameters: Iterable[tuple[str | bytes, str | bytes]]) -> str:
    """Encode, sort and join parameters (RFC 5849 section 3.4.1.3.2), which must not include the signature."""
    return _canonical((_bytes(name), _bytes(value)) for name, value in parameters).decode()


def _canonical(parameters: Iterable[tuple[bytes, bytes]]) -> bytes:
    pairs = sorted([(_encode(name, _ONCE), _encode(value, _ONCE)) for name, value in parameters])
    return b"&".join([name + b"=" + value for name, value in pairs])


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def base_string_url(url: str) -> str:
    """The URL in the form that is signed (RFC 5849 section 3.4.1.2).

    Scheme and host are in lower case, a default port and the query are removed, and the path stays as it is
    sent.
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    scheme = scheme.lower()
    authority = authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, "\0"))
    return f"{scheme}://{authority}{slash}{path}"


def signature_base_string(url: str, canonical: str, method: str = "POST") -> str:
    """The text that is signed (RFC 5849 section 3.4.1.1).

    Parameters:
        url: a :func:`base_string_url`.
        canonical: a :func:`canonical_query_string`.
    """
    return base_string_start(url, method) + _encode_again(canonical.encode()).decode()


def _encode_again(canonical: bytes) -> bytes:
    # A canonical query string holds no other reserved characters.
    return canonical.replace(b"%", b"%25").replace(b"=", b"%3D").replace(b"&", b"%26")


def base_string_start(url: str, method: str = "POST") -> str:
    """The part of a base string that names the method and a :func:`base_string_url`."""
    data = url.encode()
    if data.translate(None, delete=_UNRESERVED + b":/%"):
        return f"{method}&{percent_encode(url)}&"
    # Most URLs have no other reserved characters.
    encoded = data.replace(b"%", b"%25").replace(b":", b"%3A").replace(b"/", b"%2F")
    return f"{method}&{encoded.decode()}&"


def base_string_rest(parameters: Iterable[tuple[bytes, bytes]], form: bytes = b"") -> Iterator[bytes]:
    """The rest of a base string: the :func:`canonical_query_string` of parameters, percent-encoded once more.

    It comes in parts, since any client may send large content.

    Parameters:
        parameters: those that are signed.
        form: the form that they were parsed from; empty if there is none.
    """
    rest = _sent_rest(form)
    if rest is not None:
        yield rest
        return
    parts: list[bytes | bytearray] = []
    separator = b""
    for name, value in sorted(parameters, key=_order):
        for mark, text in ((separator, name), (b"%3D", value)):
            parts.append(mark)
            if len(text) <= _CHUNK_BYTES:
                parts.append(_encode(text, _TWICE))
                continue
            for start in range(0, len(text), _CHUNK_BYTES):
                parts.append(_encode(text[start : start + _CHUNK_BYTES], _TWICE))
                yield b"".join(parts)
                parts.clear()
        separator = b"%26"
    yield b"".join(parts)


# Not the escape of a byte that RFC 5849 section 3.6 encodes.
_OTHER_ESCAPE = re.compile(b"%(?![0189A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[B-DF])")


def _sent_rest(form: bytes) -> bytes | None:
    """The rest of a base string, from a small form that is encoded as it is signed. ``None`` for all others.

    Most clients send what they have signed. Encoding it once more would add a quarter to a publish.
    """
    if len(form) > _SMALL_BYTES:
        return None
    marks = form.translate(None, delete=_UNRESERVED + b"%")
    if marks + b"&" != b"=&" * (len(marks) // 2 + 1) or _OTHER_ESCAPE.search(form):
        return None
    # Names are compared first: NUL sorts before all that a name may contain.
    fields = sorted(form.replace(b"=", b"\0").split(b"&"))
    del fields[bisect_left(fields, b"oauth_signature\0") : bisect_left(fields, b"oauth_signature\1")]
    return _encode_again(b"&".join(fields)).replace(b"\0", b"%3D")


_RANKS = {
    byte: rank for rank, byte in enumerate(sorted(range(256), key=lambda byte: (byte in _UNRESERVED, byte)))
}

# Sorts bytes as if they were encoded: "%" is less than every unreserved character.
_ORDER = bytes(_RANKS[byte] for byte in range(256))


def _order(parameter: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = parameter
    return name.translate(_ORDER), value.translate(_ORDER)


def sign(base_string: str, secret: str) -> str:
    """The signature, in base64 (RFC 5849 section 3.4.2)."""
    return _sign(secret, base_string.encode()).decode()


def _sign(secret: str, *parts: bytes) -> bytes:
    mac = _keyed_hmac(secret).copy()
    for part in parts:
        mac.update(part)
    return binascii.b2a_base64(mac.digest(), newline=False)


@functools.lru_cache(maxsize=256)  # a process signs and verifies with the same few secrets
def _keyed_hmac(secret: str) -> hmac.HMAC:
    return hmac.new(f"{percent_encode(secret)}&".encode(), digestmod="sha1")


def sign_publish(
    url: str,
    message: str,
    *,
    api_key: str,
    secret: str,
    timestamp: int,
    nonce: str,
    exclude: str | None = None,
) -> str:
    """The body of a publish: its parameters in the order in which they are signed, and their signature.

    Parameters:
        url: a :func:`base_string_url`.
        message: the text to publish.
        timestamp: seconds since 1970.
        nonce: text that no other request of the same second has.
        exclude: the subscriber ID that does not receive the message; ``None`` for none.
    """
    excluded = "" if exclude is None else f"exclude={percent_encode(exclude)}&"
    return _sign_form(
        url,
        f"{excluded}message={percent_encode(message)}",
        api_key=api_key,
        secret=secret,
        timestamp=timestamp,
        nonce=nonce,
    )


def sign_batch(url: str, messages: bytes, *, api_key: str, secret: str, timestamp: int, nonce: str) -> str:
    """The body of a batch: its parameters in the order in which they are signed, and their signature.

    Parameters:
        url: a :func:`base_string_url`.
        messages: the JSON text of the messages.
        timestamp: seconds since 1970.
        nonce: text that no other request of the same second has.
    """
    content = f"messages={percent_encode(messages)}"
    return _sign_form(url, content, api_key=api_key, secret=secret, timestamp=timestamp, nonce=nonce)


def _sign_form(url: str, content: str, *, api_key: str, secret: str, timestamp: int, nonce: str) -> str:
    canonical = (
        f"api_version=1.0&{content}&oauth_consumer_key={percent_encode(api_key)}"
        f"&oauth_nonce={percent_encode(nonce)}&oauth_signature_method=HMAC-SHA1&oauth_timestamp={timestamp}"
        "&oauth_version=1.0"
    )
    return _signed(url, canonical, secret)


def sign_form(
    url: str,
    parameters: Iterable[tuple[str | bytes, str | bytes]],
    *,
    api_key: str,
    secret: str,
    timestamp: int,
    nonce: str,
) -> str:
    """The body of a signed form with any parameters.

    Parameters:
        url: a :func:`base_string_url`.
        parameters: names and values of the form.
        timestamp: seconds since 1970.
        nonce: text that no other request of the same second has.
    """
    canonical = canonical_query_string(
        [
            *parameters,
            ("oauth_consumer_key", api_key),
            ("oauth_nonce", nonce),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", str(timestamp)),
            ("oauth_version", "1.0"),
        ]
    )
    return _signed(url, canonical, secret)


def _signed(url: str, canonical: str, secret: str) -> str:
    signature = sign(signature_base_string(url, canonical), secret)
    return f"{canonical}&oauth_signature={percent_encode(signature)}"


def verify(start: str, rest: Iterable[bytes], secret: str, signature: bytes) -> bool:
    """Whether ``signature`` is that of a base string, in constant time.

    Parameters:
        start: as :func:`base_string_start` makes it.
        rest: as :func:`base_string_rest` makes it.
    """
    return hmac.compare_digest(_sign(secret, start.encode(), *rest), signature)
