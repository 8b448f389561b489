"""The link to Redis: the form of commands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection

from tambur.server.broker.redis.link import pack

ARGUMENTS = st.one_of(st.text(), st.binary(), st.integers(), st.floats(allow_nan=False))


@given(st.lists(st.lists(ARGUMENTS, min_size=1, max_size=5).map(lambda words: ["SET", *words]), max_size=3))
def test_commands_have_the_form_that_redis_py_gives_them(commands: list[list[str | bytes | float]]) -> None:
    assert pack(commands) == b"".join(Connection().pack_commands(commands))
