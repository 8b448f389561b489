"""Strategies for Hypothesis: names, secrets and JSON."""

from __future__ import annotations

from hypothesis import strategies as st

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200)


def is_stream(name: str) -> bool:
    return name not in ("private", ".", "..") and not name.startswith(("auth:", "private:"))


streams = names.filter(is_stream)
ids = names.filter(lambda name: ":" not in name)
credential_names = ids.filter(lambda name: "/" not in name and name not in (".", ".."))
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["hello", "subscribe", "unsubscribe", "set_mode", "unset_mode", "direct", "auth", "presence"]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)  # fmt: skip
