"""OAuth 1.0a signatures (RFC 5849), HMAC-SHA1, without a token: one function a step.

Nothing here goes through text where bytes were sent: other clients' nonces hold bytes that are no UTF-8.
"""

from __future__ import annotations

import base64
import functools
import hmac
import string
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

_UNRESERVED = (string.ascii_letters + string.digits + "-._~").encode()
_ENCODED = [chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)]
_REPLACEMENTS = [(bytes((byte,)), encoded.encode()) for byte, encoded in enumerate(_ENCODED)]
_PERCENT = ord("%")
_MAX_REPLACEMENTS = 10  # about where replacing byte by byte takes as long as encoding each for itself

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def percent_encode(text: str | bytes) -> str:
    """Encode all but RFC 3986's unreserved characters, text as UTF-8 (RFC 5849 section 3.6)."""
    data = text.encode() if isinstance(text, str) else text
    reserved = data.translate(None, delete=_UNRESERVED)
    if not reserved:
        return data.decode()
    # Of more than that, there are many kinds in nearly every case: to count them would take longer.
    if 3 * len(reserved) > 2 * len(data) or len(kinds := set(reserved)) > _MAX_REPLACEMENTS:
        return "".join([_ENCODED[byte] for byte in data])
    # A message has thousands of characters, but few kinds of them that must be encoded.
    if _PERCENT in kinds:  # first, since the others bring it
        kinds.remove(_PERCENT)
        data = data.replace(b"%", b"%25")
    for byte in kinds:
        data = data.replace(*_REPLACEMENTS[byte])
    return data.decode()


def parse_form(body: bytes) -> list[tuple[bytes, bytes]]:
    """Decode an ``application/x-www-form-urlencoded`` body into names and values, as bytes.

    What is not percent-encoded stands for itself, whatever byte it is; ``+`` is a space.
    """
    pairs = []
    for field in body.split(b"&"):
        if field:
            name, _, value = field.replace(b"+", b" ").partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


def canonical_query_string(parameters: Iterable[tuple[str | bytes, str | bytes]]) -> str:
    """Encode, sort and join parameters, ``oauth_signature`` left out (RFC 5849 section 3.4.1.3.2)."""
    pairs = sorted((percent_encode(name), percent_encode(value)) for name, value in parameters)
    return "&".join([f"{name}={value}" for name, value in pairs])


def base_string_url(url: str) -> str:
    """The URL as it is signed (RFC 5849 section 3.4.1.2).

    Scheme and host in lower case, the port only where it is not the scheme's default, the path
    byte for byte as it is sent, no query.
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    scheme = scheme.lower()
    authority = authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, "\0"))
    return f"{scheme}://{authority}{slash}{path}"


def signature_base_string(url: str, canonical: str, method: str = "POST") -> str:
    """What is signed, of a :func:`base_string_url` and a :func:`canonical_query_string` (section 3.4.1.1)."""
    # All that percent-encoding would still change in a canonical query string, many times faster.
    encoded = canonical.replace("%", "%25").replace("=", "%3D").replace("&", "%26")
    return f"{method}&{percent_encode(url)}&{encoded}"


def sign(base_string: str, secret: str) -> str:
    """The signature, in base64 (RFC 5849 section 3.4.2)."""
    mac = _keyed_hmac(secret).copy()
    mac.update(base_string.encode())
    return base64.b64encode(mac.digest()).decode()


@functools.lru_cache(maxsize=256)  # a process signs and verifies with the same few secrets
def _keyed_hmac(secret: str) -> hmac.HMAC:
    return hmac.new(f"{percent_encode(secret)}&".encode(), digestmod="sha1")


def sign_publish(url: str, message: str, *, api_key: str, secret: str, timestamp: int, nonce: str) -> str:
    """The body of a publish: its parameters in the order in which they are signed, and their signature.

    Parameters:
        url: a :func:`base_string_url`.
        timestamp: seconds since 1970.
        nonce: text that no other request of the same second has.
    """
    canonical = (
        f"api_version=1.0&message={percent_encode(message)}&oauth_consumer_key={percent_encode(api_key)}"
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


def verify(base_string: str, secret: str, signature: bytes) -> bool:
    """Whether ``signature`` is that of ``base_string``; the time taken does not tell how far it is."""
    return hmac.compare_digest(sign(base_string, secret).encode(), signature)
