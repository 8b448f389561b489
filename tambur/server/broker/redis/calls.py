"""What one node asks another, and is answered, over the channel that each has of its own."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from ...logs import line
from .. import Answer, BrokerUnavailableError
from .link import RETRY_AFTER_S, Link

logger = logging.getLogger("tambur.server")


class Questions:
    """The questions of one node, and those that it is asked.

    Parameters:
        node: its id.
        tell: publishes something on the channel of a node, if that can be done now.
    """

    def __init__(self, node: str, tell: Callable[[str, bytes], None]) -> None:
        self._node = node
        self._tell = tell
        self._answer: Answer | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._answering: dict[bytes, asyncio.Task[None]] = {}

    def start(self, answer: Answer) -> None:
        self._answer = answer

    async def ask(
        self,
        node: str,
        question: bytes,
        *,
        link: Link,
        send: Callable[[bytes], Awaitable[int]],
        timeout_s: float,
    ) -> bytes | None:
        """Ask, and wait for the answer; who no longer waits has it withdrawn.

        Parameters:
            link: whose failure ends the waiting.
            send: publishes on the node's channel, and returns how many listened.

        Returns:
            ``None`` if there is no such node.

        Raises:
            BrokerUnavailableError: no answer came.
        """
        number = next(self._numbers)
        name = f"{self._node} {number}"
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            if not await send(f"question {name}\n".encode() + question):
                answered.cancel()
                return None
            await asyncio.wait(
                (answered, link.failed), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not answered.done():
                raise BrokerUnavailableError("the node that knows did not answer", RETRY_AFTER_S)
            return answered.result()
        finally:
            del self._waiting[number]
            if not answered.done():
                self._tell(node, f"withdrawn {name}\n".encode())

    def receive(self, head: bytes, data: bytes) -> None:
        """Take a message of the own channel; ``head`` is its first line."""
        match head.split(b" "):
            case [b"question", node, number]:
                name = b"%s %s" % (node, number)
                work = self._reply(node.decode(), int(number), data)
                task = self._answering[name] = asyncio.get_running_loop().create_task(work)
                task.add_done_callback(lambda _: self._answering.pop(name))
            case [b"withdrawn", node, number]:
                if (answering := self._answering.get(b"%s %s" % (node, number))) is not None:
                    answering.cancel()
            case [b"reply", number] if int(number) in self._waiting:
                answered = self._waiting[int(number)]
                if not answered.done():
                    answered.set_result(data)

    def withdraw_all(self) -> None:
        """What is being answered can be told nobody any more."""
        for task in self._answering.values():
            task.cancel()

    async def _reply(self, node: str, number: int, question: bytes) -> None:
        assert self._answer is not None
        try:
            answer = await self._answer(question)
        except Exception:
            logger.exception(line("question of another node not answered", node=node))
        else:
            self._tell(node, f"reply {number}\n".encode() + answer)
