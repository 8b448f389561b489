"""Calls from one node to another, over the channel that each node has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping

from ...logs import line
from .. import Answer, AppKey, BrokerUnavailableError, Moved
from ..ids import node_of
from . import scripts
from .link import RETRY_AFTER_S, Link
from .shard import NodePart, Shard

_MOVED = "moved\n"  # no question of the server begins so

logger = logging.getLogger("tambur.server")


class RedisNodeCalls(NodePart):
    """The calls of one node, and those that other nodes make to it.

    Parameters:
        shard: the Redis.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._answer: Answer | None = None
        self.moved: Moved = lambda _, __: None
        self._lose: Callable[[AppKey, str, int], bool] = lambda _, __, ___: True
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._answering: dict[bytes, asyncio.Task[None]] = {}

    def start(self, answer: Answer, moved: Moved, lose: Callable[[AppKey, str, int], bool]) -> None:
        """Parameters:
        moved: called with the ID of a session whose connection is closed, since another node continues it.
        lose: returns whether that is so, given how often the session was resumed.
        """
        self._answer, self.moved, self._lose = answer, moved, lose

    async def ask(self, subscriber_id: str, question: bytes, *, timeout_s: float) -> bytes | None:
        node = node_of(subscriber_id)
        return (
            None if node == self._shard.node else await self._ask(node, question, timeout_s, withdraws=True)
        )

    @contextlib.contextmanager
    def moving(self, app: AppKey, subscriber_id: str) -> Iterator[tuple[bytes, asyncio.Future[bytes]]]:
        """Expect that another node closes the connection of a session, since this node continues it.

        Returns:
            The question to that node, which ends with how often the session was resumed, and its answer.
        """
        with self._expected() as (head, answered):
            yield head + f"{_MOVED}{app.api_key}\n{app.app_id}\n{subscriber_id}\n".encode(), answered

    async def ask_each(
        self, question: bytes, *, timeout_s: float
    ) -> Mapping[str, bytes | BrokerUnavailableError]:
        shard = self._shard
        command = scripts.NODES(shard.deadline(), keys=(shard.keys.links, shard.keys.leases))
        found = [node.decode() for node in await shard.ready_link().call(*command)]
        others = [node for node in found if node != shard.node]
        answers = await asyncio.gather(*(self._answer_of(node, question, timeout_s) for node in others))
        return dict(zip(others, answers, strict=True))

    async def _answer_of(
        self, node: str, question: bytes, timeout_s: float
    ) -> bytes | BrokerUnavailableError:
        try:
            answer = await self._ask(node, question, timeout_s)
        except BrokerUnavailableError as error:
            return error
        if answer is None:
            return BrokerUnavailableError(f"the node {node} cannot be reached", RETRY_AFTER_S)
        return answer

    async def _ask(
        self, node: str, question: bytes, timeout_s: float, *, withdraws: bool = False
    ) -> bytes | None:
        """Ask one node.

        Parameters:
            withdraws: whether a node that is late should do nothing. Otherwise it does what it is asked for,
                once it can.

        Returns:
            ``None`` if the node does not run.
        """
        link = self._shard.ready_link()
        with self._expected() as (head, answered):
            try:
                if not await self._send(link, node, head + question):
                    answered.cancel()
                    return None
                await asyncio.wait(
                    (answered, link.failed), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not answered.done():
                    raise BrokerUnavailableError("the node of this subscriber did not answer", RETRY_AFTER_S)
                return answered.result()
            finally:
                if withdraws and not answered.done():
                    self._publish(node, b"withdrawn" + head.removeprefix(b"question"))

    @contextlib.contextmanager
    def _expected(self) -> Iterator[tuple[bytes, asyncio.Future[bytes]]]:
        """Expect the answer to a question; the result is the question's first line, and its answer."""
        number = next(self._numbers)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            yield f"question {self._shard.node} {number}\n".encode(), answered
        finally:
            del self._waiting[number]

    # Callbacks of the link

    def receive(self, channel: bytes, data: bytes) -> bool:
        if channel != self._shard.node_key:
            return False
        head, _, rest = data.partition(b"\n")
        match head.split(b" "):
            case [b"question", node, number]:
                name = b"%s %s" % (node, number)
                work = self._reply(node.decode(), int(number), rest)
                task = self._answering[name] = asyncio.get_running_loop().create_task(work)
                task.add_done_callback(lambda _: self._answering.pop(name))
            case [b"withdrawn", node, number]:
                if (answering := self._answering.get(b"%s %s" % (node, number))) is not None:
                    answering.cancel()
            case [b"reply", number] if int(number) in self._waiting:
                answered = self._waiting[int(number)]
                if not answered.done():
                    answered.set_result(rest)
        return True

    def unlink(self) -> None:
        """Cancel the calls in progress: their replies can no longer be sent."""
        for task in self._answering.values():
            task.cancel()

    async def _reply(self, node: str, number: int, question: bytes) -> None:
        assert self._answer is not None
        try:
            if question.startswith(_MOVED.encode()):
                _, api_key, app_id, subscriber_id, resumes = question.decode().split("\n")
                app = AppKey(api_key, app_id)
                if self._lose(app, subscriber_id, int(resumes)):
                    self.moved(app, subscriber_id)
                answer = b""
            else:
                answer = await self._answer(question)
        except Exception:
            logger.exception(line("call of another node failed", node=node))
        else:
            self._publish(node, f"reply {number}\n".encode() + answer)

    async def _send(self, link: Link, node: str, data: bytes) -> int:
        """Returns how many nodes listen: 0 or 1."""
        channel = self._shard.keys.node(node)
        count: int = await link.call(*scripts.SEND(self._shard.deadline(), channel, data, keys=()))
        return count

    def _publish(self, node: str, data: bytes) -> None:
        if self._shard.link is not None:
            self._shard.link.send("PUBLISH", self._shard.keys.node(node), data)
