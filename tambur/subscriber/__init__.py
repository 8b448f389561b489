"""A blocking WebSocket subscriber for bots, tests and the command line.

It needs ``pip install 'tambur[subscriber]>=1'``. A bot that answers direct messages, and reconnects::

    from tambur import MessagesMissedError, Tambur
    from tambur.subscriber import Subscriber

    tambur = Tambur.from_env()
    with Subscriber.from_env(reconnect=True) as bot:
        bot.subscribe("lobby")
        bot.enable_direct("lobby", "bot", tambur.generate_direct_token)
        while True:
            try:
                message = bot.receive()
            except MessagesMissedError:
                continue  # this bot keeps no state that it would have to load again
            if message.kind == "direct":
                bot.send_direct("lobby", message.user_id, f"You said: {message.text}")

It implements sections 4 and 7 of the protocol (docs/reference/protocol.md), and names commands as the
protocol does.
"""

from .client import AuthToken, Subscriber, UserToken
from .messages import Message, Subscription

__all__ = ["AuthToken", "Message", "Subscriber", "Subscription", "UserToken"]
