"""``tambur demo``: a server, a message of each kind, and a page to try everything."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading

from ...credentials import ENVIRONMENT_VARIABLE, Credentials
from ...loopback import no_proxy
from ...publisher.client import Tambur
from ...server import Config, in_background
from ...subscriber import Subscriber
from ..shell import tambur_command
from .page import make_routes
from .play import ROOM, play


def run(credentials: Credentials, *, port: int, once: bool) -> int:
    """Start a server, send a message of each kind and print who received it. Then serve the page.

    Parameters:
        credentials: those of the server's one app; their ``base_url`` is ignored.
        port: the port to listen on; 0 picks a free one.
        once: whether to return instead of serving the page until Ctrl-C.

    Returns:
        The exit status: 0 if each message arrived at the right subscribers and at no other.
    """
    os.environ["no_proxy"] = no_proxy()
    config = Config.from_credentials(credentials, port=port, console_port=0)
    with in_background(config, make_routes(credentials, lambda: server.console_url)) as server:
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
        url = shlex.quote(credentials.at(server.url).to_url())
        with contextlib.suppress(KeyboardInterrupt):
            print(f"\nOpen {server.url}/ in a browser. To publish to that page, type in another terminal:\n")
            print(f"    export {ENVIRONMENT_VARIABLE}={url}")
            print(f"    {tambur_command('publish', ROOM, 'Hello, page')}")
            print(f"\nThe console shows what the server does: {server.console_url}/")
            print("\nCtrl-C ends the demo.", flush=True)
            threading.Event().wait()
    return 0
