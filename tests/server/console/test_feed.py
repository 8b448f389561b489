"""The newest items, for viewers that come and go."""

from __future__ import annotations

from tambur.server.console.feed import Feed


def test_a_viewer_gets_each_kept_item_once() -> None:
    feed: Feed[str] = Feed(3)
    assert feed.since(0) == []
    for item in "ab":
        feed.add(item)
    assert (feed.since(0), feed.end) == (["a", "b"], 2)
    assert feed.since(1) == ["b"]
    assert feed.since(2) == []


def test_a_late_viewer_gets_the_newest_items() -> None:
    feed: Feed[str] = Feed(3)
    for item in "abcde":
        feed.add(item)
    assert list(feed) == ["c", "d", "e"]
    assert feed.since(0) == feed.since(2) == ["c", "d", "e"]
    assert feed.since(4) == ["e"]
