"""``tambur demo``: a server, a message of each kind through it, and a page to play with."""

from __future__ import annotations

import contextlib
import os
import threading

from ...credentials import ENVIRONMENT_VARIABLE, Credentials
from ...loopback import no_proxy
from ...publisher.client import Tambur
from ...server import Config, in_background
from ...subscriber import Subscriber
from .page import make_routes
from .play import ROOM, play


def run(credentials: Credentials, *, port: int, once: bool) -> int:
    """Start a server, send a message of each kind, print what each subscriber received; then serve the page.

    Parameters:
        credentials: of the server's one app; their ``base_url`` is not looked at.
        port: to listen on; 0 picks a free one.
        once: return instead of serving the page until Ctrl-C.

    Returns:
        The exit status: 0 if every message arrived where it should and nowhere else.
    """
    os.environ["no_proxy"] = no_proxy()
    config = Config.from_credentials(credentials, port=port)
    with in_background(config, make_routes(credentials)) as server:
        print(f"Tambur is listening on {server.url}\n")
        address = (credentials.api_key, credentials.app_id)
        with (
            Tambur(*address, credentials.secret, server.url) as tambur,
            Subscriber(*address, server.url) as alice,
            Subscriber(*address, server.url) as bob,
        ):
            all_arrived = play(tambur, alice, bob)
        if once or not all_arrived:
            return 0 if all_arrived else 1
        url = credentials.at(server.url).to_url()
        print(f"\nUntil Ctrl-C, there is a page at {server.url}/. Publish into it from another terminal:\n")
        print(f"    export {ENVIRONMENT_VARIABLE}={url}")
        print(f"    tambur publish {ROOM} 'Hello, page'", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
