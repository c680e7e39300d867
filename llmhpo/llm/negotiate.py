"""One exchange with a hosted service, asked again without what the service refuses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import httpx2

from llmhpo.llm.hosted import Answer, Endpoint, Suspects, blamed, read_body
from llmhpo.llm.transport import Deadline, RejectedError, Transport


class Attempt(NamedTuple):
    """The arguments of a call of the SDK, and the options among them that may be left out."""

    arguments: dict[str, Any]
    options: Collection[str]


class Agreement(NamedTuple):
    """An answer, and the options that had to be left out for it."""

    answer: Answer
    refused: frozenset[str]


def negotiate(
    attempt: Callable[[frozenset[str]], Attempt],
    create: Callable[[], Callable[..., Any]],
    refused: frozenset[str],
    *,
    transport: Transport,
    endpoint: Endpoint,
    suspects: Suspects,
    deadline: Deadline,
) -> Agreement:
    """Call the service until it complains of no option, each time without those it has refused.

    `attempt(refused)` gives the arguments; `create()` the SDK's streaming call on an open client, anew for each try,
    since a deadline that passes closes the client.

    Raises: LLMUnavailableError, LLMRequestError (RejectedError for a complaint of no option), LLMReplyError.
    """
    while True:
        arguments, options = attempt(refused)

        def once(timeout: httpx2.Timeout, arguments: dict[str, Any] = arguments) -> Answer:
            with create()(**arguments, timeout=timeout) as response:
                body = read_body(response.iter_bytes(), endpoint)
                return Answer(body, response.headers.get("content-type", ""))

        try:
            return Agreement(transport.send(once, deadline), refused)
        except RejectedError as error:
            option = blamed(error.complaint, options, suspects)
            if option is None:
                raise
            refused |= {option}
