"""OAuth 1.0a signatures (RFC 5849), HMAC-SHA1, without a token: one function a step.

Nothing here goes through text where bytes were sent: other clients' nonces hold bytes that are no UTF-8.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def percent_encode(text: str | bytes) -> str:
    """Encode all but RFC 3986's unreserved characters, text as UTF-8 (RFC 5849 section 3.6)."""
    return quote(text, safe="")


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
    key = f"{percent_encode(secret)}&".encode()
    digest = hmac.new(key, base_string.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def verify(base_string: str, secret: str, signature: bytes) -> bool:
    """Whether ``signature`` is that of ``base_string``; the time taken does not tell how far it is."""
    return hmac.compare_digest(sign(base_string, secret).encode(), signature)
