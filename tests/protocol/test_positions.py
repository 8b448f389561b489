"""Positions: section 7 of the protocol."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from tambur.protocol.positions import Positions

from ..support.app import API_KEY, APP_ID, SECRET
from ..support.strategies import credential_names, secrets, streams

EPOCH = b"an epoch"
PLACE = 1_764_115_200_123_456

epochs = st.binary(min_size=1, max_size=64)
places = st.integers(0, 2**64 - 1)


def positions(api_key: str = API_KEY, app_id: str = APP_ID, *secrets: str) -> Positions:
    return Positions(api_key, app_id, secrets or (SECRET,))


@given(credential_names, credential_names, secrets, streams, epochs, places)
def test_a_position_is_opaque_text_that_decodes_to_its_place(
    api_key: str, app_id: str, secret: str, stream: str, epoch: bytes, place: int
) -> None:
    made = Positions(api_key, app_id, (secret,)).encode(stream, epoch, place)
    assert re.fullmatch(r"[A-Za-z0-9._]{22}", made)
    assert Positions(api_key, app_id, (secret,)).decode(stream, epoch, made) == place


def test_every_node_makes_the_same_position() -> None:
    assert positions().encode("news", EPOCH, PLACE) == "pvoX39t853qJPEsM9I6GNA"


def test_a_position_is_valid_only_for_its_app_stream_and_epoch() -> None:
    made = positions().encode("news", EPOCH, PLACE)
    assert positions().decode("news", EPOCH, made) == PLACE
    assert positions().decode("other", EPOCH, made) is None
    assert positions().decode("news", b"another", made) is None
    assert positions("other-key").decode("news", EPOCH, made) is None
    assert positions(API_KEY, "other-app").decode("news", EPOCH, made) is None
    assert positions(API_KEY, APP_ID, "other secret").decode("news", EPOCH, made) is None


def test_fields_do_not_run_into_each_other() -> None:
    made = positions("ab", "c").encode("news", b"epoch", PLACE)
    assert positions("a", "bc").decode("news", b"epoch", made) is None
    assert positions("ab", "c").decode("snews", b"epoch"[:-1], made) is None


@given(st.integers(0, 21), st.sampled_from("ABab01-_."), streams)
def test_a_position_with_a_changed_character_is_invalid(index: int, character: str, stream: str) -> None:
    made = positions().encode(stream, EPOCH, PLACE)
    changed = made[:index] + character + made[index + 1 :]
    assume(changed != made)
    assert positions().decode(stream, EPOCH, changed) is None


@given(st.text(max_size=70))
def test_other_text_is_no_position(text: str) -> None:
    assert positions().decode("news", EPOCH, text) is None


def test_a_position_has_one_spelling() -> None:
    made = positions().encode("news", EPOCH, PLACE)
    # The last of 22 characters holds 2 bits of the 128; the other 4 are ignored by lenient decoders.
    spellings = [made[:-1] + c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    assert [s for s in spellings if positions().decode("news", EPOCH, s) is not None] == [made]
    for other in (f"{made}==", f" {made}", f"{made}\n", made[:-1], f"{made}A"):
        assert positions().decode("news", EPOCH, other) is None


def test_a_position_survives_a_change_of_the_secret() -> None:
    made = positions(API_KEY, APP_ID, "old").encode("news", EPOCH, PLACE)
    both = positions(API_KEY, APP_ID, "new", "old")
    assert both.decode("news", EPOCH, made) == PLACE
    assert both.encode("news", EPOCH, PLACE) == positions(API_KEY, APP_ID, "new").encode("news", EPOCH, PLACE)


@given(places, st.integers(1, 1000))
def test_the_distance_of_two_places_does_not_show(place: int, distance: int) -> None:
    """A mask that is the same for a whole stream would show it."""
    assume(place + 2 * distance < 2**64)
    shown = [positions().encode("news", EPOCH, p) for p in (place, place + distance, place + 2 * distance)]
    assert len({text[:8] for text in shown}) == len({text[-8:] for text in shown}) == 3
