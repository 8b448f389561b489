"""Questions of a node to all other nodes of its cluster."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from .broker import AppKey, BrokerUnavailableError, NodeCalls

TIMEOUT_S = 2.0
"""How long another node may take to answer, in seconds (section 9 of the protocol)."""

QUESTION = b"cluster\n"
"""How these questions begin."""


class Cluster:
    """Asks all other nodes, and answers them. Each kind of question has a word.

    Parameters:
        calls: the calls from node to node.

    Attributes:
        answers: for each word, a function of the app and the arguments. It answers for this node alone.
            Arguments and answers are JSON.
    """

    def __init__(self, calls: NodeCalls) -> None:
        self._calls = calls
        self.answers: dict[str, Callable[..., Awaitable[Any]]] = {}

    async def ask_all(self, word: str, app: AppKey, *arguments: object) -> list[Any]:
        """Have all other nodes answer.

        Raises:
            BrokerUnavailableError: a node has not answered. The others have been asked.
        """
        answers = []
        for answer in (await self.ask_each(word, app, *arguments)).values():
            if isinstance(answer, BrokerUnavailableError):
                raise answer
            answers.append(answer)
        return answers

    async def ask_each(self, word: str, app: AppKey, *arguments: object) -> dict[str, Any]:
        """Have all other nodes answer.

        Returns:
            For each node, by its ID, its answer, or a :class:`BrokerUnavailableError` that says why there is
            none.

        Raises:
            BrokerUnavailableError: no node could be asked.
        """
        question = QUESTION + json.dumps([word, *app, *arguments]).encode()
        answers = await self._calls.ask_each(question, timeout_s=TIMEOUT_S)
        return {
            node: answer if isinstance(answer, BrokerUnavailableError) else json.loads(answer)
            for node, answer in answers.items()
        }

    async def answer(self, question: bytes) -> bytes:
        """Answer a question that begins with :data:`QUESTION`."""
        word, api_key, app_id, *arguments = json.loads(question.removeprefix(QUESTION))
        answer = await self.answers[word](AppKey(api_key, app_id), *arguments)
        return json.dumps(answer).encode()
