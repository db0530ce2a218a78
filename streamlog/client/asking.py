"""How the admin client asks: any broker, the controller or a coordinator, again while the answer may change.

Methods about several things at once ask until each has its answer, and raise `SomeFailed` about the refused ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import TypeVar

from streamlog.client.admin_values import SomeFailed
from streamlog.client.cluster import GROUP_COORDINATOR, Cluster
from streamlog.client.failures import LOST_COORDINATOR
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response

R = TypeVar("R", bound=Response)
T = TypeVar("T")

TELLING = frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID})
"""Retriable for who reads and writes; an operator who names a topic wants to hear that it is not there."""


class Asking:
    """See the module's essay. Owns nothing: the cluster is opened and closed by whoever made it."""

    def __init__(self, cluster: Cluster, timeout_ms: int) -> None:
        self.cluster = cluster
        self.timeout_ms = timeout_ms

    async def any(self, what: str, request: Request, response: type[R]) -> R:
        failures = count()
        return await self.cluster.retrying(
            what,
            lambda: self.cluster.request_any(request, response, failures=next(failures)),
            timeout_ms=self.timeout_ms,
        )

    async def controller(self, request: Request, response: type[R]) -> R:
        """Ask the controller if it is known; any broker passes such requests on to it. One attempt."""
        node_id = self.cluster.metadata.controller_id
        if node_id in self.cluster.metadata.brokers:
            timeout_ms = self.timeout_ms + self.cluster.settings.request_timeout_ms
            return await self.cluster.request(node_id, request, response, timeout_ms=timeout_ms)
        return await self.cluster.request_any(request, response)

    async def through_any(self, what: str, request: Request, response: type[R], read: Callable[[R], T]) -> T:
        """Ask what the controller decides and what does no harm to be asked twice; `read` raises errors that pass.

        Not the controller itself first: brokers know who it is sooner than we do.
        """
        failures = count()

        async def attempt() -> T:
            return read(await self.cluster.request_any(request, response, failures=next(failures)))

        return await self.cluster.retrying(what, attempt, timeout_ms=self.timeout_ms)

    async def coordinator(self, group_id: str, request: Request, response: type[R]) -> R:
        node_id = await self.cluster.coordinator(GROUP_COORDINATOR, group_id)
        return await self.cluster.request(node_id, request, response)

    def group_error(self, group_id: str, error_code: int, message: str | None) -> KafkaError | None:
        error = error_of(error_code, message or f"group '{group_id}'")
        if error is not None and error.code in LOST_COORDINATOR:
            self.cluster.forget_coordinator(GROUP_COORDINATOR, group_id)
        return error

    def raise_group_error(self, group_id: str, error_code: int) -> None:
        error = self.group_error(group_id, error_code, None)
        if error is not None:
            raise error

    async def each(
        self,
        what: str,
        things: Iterable[T],
        attempt: Callable[[Sequence[T]], Awaitable[Mapping[T, KafkaError | None]]],
    ) -> None:
        """Ask about all things, and again about those whose errors pass. Raises SomeFailed about the rest."""
        left = list(dict.fromkeys(things))
        failed: dict[str, KafkaError] = {}

        async def attempt_left() -> None:
            if not left:
                return
            answers = await attempt(list(left))
            passing: KafkaError | None = None
            for thing in list(left):
                error = answers.get(thing, KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "not in the broker's answer"))
                if error is not None and error.retriable and error.code not in TELLING:
                    passing = error
                    failed[str(thing)] = error
                    continue
                left.remove(thing)
                failed.pop(str(thing), None)
                if error is not None:
                    failed[str(thing)] = error
            if passing is not None:
                raise passing

        try:
            await self.cluster.retrying(what, attempt_left, timeout_ms=self.timeout_ms)
        except KafkaError as refusal:
            if refusal not in failed.values():
                raise
        if failed:
            raise SomeFailed(failed)


def error_of(error_code: int, message: str | None) -> KafkaError | None:
    """The refusal that an answer's error code stands for, if it is one."""
    return KafkaError(ErrorCode.of(error_code), message or "") if error_code else None


def check(error_code: int, message: str | None, what: str) -> None:
    """Raise what an answer's error code stands for."""
    if error_code:
        raise KafkaError(ErrorCode.of(error_code), f"{what}: {message}" if message else what)
