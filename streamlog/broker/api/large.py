"""Requests of very many elements, answered in slices, so that other clients notice nothing.

A frame of a few megabytes names half a million partitions. Answering it in one go would hold the loop, and with it
everybody else, for seconds. So a large frame is decoded and its response encoded in a thread, and in between the
request is cut into small ones of the same kind, which the API's handler answers one by one while others get their turn.
Whoever asks for so much waits a little longer; what it gets is the same.

A slice is a request of its own: two elements that contradict each other (a topic created twice) are judged in order
when they fall into different slices, not as a pair.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from streamlog.errors import RemoteProtocolError
from streamlog.wire.apis import ApiKey
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DescribeTopicPartitionsRequest,
    FetchRequest,
    ProduceRequest,
)

T = TypeVar("T")

LARGE_FRAME_BYTES: Final = 64 * 1024
"""Smaller frames are answered in one go: they name at most some thousands of partitions, and take some milliseconds."""

SLICE_ELEMENTS: Final = 500
"""Answered at a time: about 2 ms, and up to 10 ms for elements that cost most (all configs of a topic)."""

PAUSE_S: Final = 0.001
"""Others get at least this much between two slices."""

ELEMENTS_MAX: Final[dict[int, int]] = {
    ApiKey.PRODUCE: 10_000,
    ApiKey.FETCH: 20_000,
    ApiKey.CREATE_TOPICS: 20_000,
    ApiKey.CREATE_PARTITIONS: 20_000,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: 20_000,
}
"""Requests that are not cut here, and the partitions or topics they may name. The order of appends, the state of a
fetch session, the policy on how much is created at once and the end of a page hang on the request as a whole (Produce
takes turns of its own, see produce.py). A producer's request has a megabyte, a consumer of more partitions has several
brokers, and the policy allows half as many topics."""


class Slicing(NamedTuple):
    """Where a request's elements are, and where its response's."""

    elements: tuple[str, ...]
    """The request's list; several names where it depends on the version, of which one is filled."""
    answers: str
    inner: tuple[str, str] | None = None
    """The lists within an element and its answer, where those are what may be long: partitions of a topic."""


_PARTITIONS: Final = Slicing(("topics",), "topics", ("partitions", "partitions"))

SLICINGS: Final[dict[int, Slicing]] = {
    ApiKey.LIST_OFFSETS: _PARTITIONS,
    ApiKey.DELETE_RECORDS: _PARTITIONS,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: _PARTITIONS,
    ApiKey.OFFSET_COMMIT: _PARTITIONS,
    ApiKey.METADATA: Slicing(("topics",), "topics"),
    ApiKey.DELETE_TOPICS: Slicing(("topics", "topic_names"), "responses"),
    ApiKey.DESCRIBE_CONFIGS: Slicing(("resources",), "results"),
    ApiKey.ALTER_CONFIGS: Slicing(("resources",), "responses"),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: Slicing(("resources",), "responses"),
    ApiKey.FIND_COORDINATOR: Slicing(("coordinator_keys",), "coordinators"),
    ApiKey.DESCRIBE_GROUPS: Slicing(("groups",), "groups"),
    ApiKey.DELETE_GROUPS: Slicing(("groups_names",), "results"),
}

Elements: TypeAlias = list[Any]
"""What the lists hold differs from API to API, and nothing here looks into it but by the names above."""


class Piece(NamedTuple):
    request: Request
    continues: bool
    """Its first element is the rest of the last one of the piece before."""


def cut(request: Request, slicing: Slicing, elements_max: int = SLICE_ELEMENTS) -> Iterator[Piece]:
    """The request as small ones. One without elements comes back as it is."""
    names = [name for name in slicing.elements if getattr(request, name)]
    if not names:
        yield Piece(request, False)
        return
    elements = cast(Elements, getattr(request, names[0]))
    pieces = (
        _cut_flat(elements, elements_max)
        if slicing.inner is None
        else _cut_inner(elements, slicing.inner[0], elements_max)
    )
    for piece, continues in pieces:
        small = copy.copy(request)
        setattr(small, names[0], piece)
        yield Piece(small, continues)


def _cut_flat(elements: Elements, elements_max: int) -> Iterator[tuple[Elements, bool]]:
    for start in range(0, len(elements), elements_max):
        yield elements[start : start + elements_max], False


def _cut_inner(elements: Elements, inner: str, elements_max: int) -> Iterator[tuple[Elements, bool]]:
    piece: Elements = []
    room, continues = elements_max, False
    for element in elements:
        rest = cast(Elements, getattr(element, inner))
        while len(rest) > room:
            piece.append(_with(element, inner, rest[:room]))
            yield piece, continues
            piece, rest, room, continues = [], rest[room:], elements_max, True
        piece.append(_with(element, inner, rest))
        room -= max(1, len(rest))
        if room <= 0:
            yield piece, continues
            piece, room, continues = [], elements_max, False
    if piece:
        yield piece, continues


def _with(element: Any, inner: str, part: Elements) -> Any:
    changed = copy.copy(element)
    setattr(changed, inner, part)
    return changed


def join(whole: Response, part: Response, slicing: Slicing, continues: bool) -> None:
    """Put a piece's answers behind those of the pieces before it."""
    answers = cast(Elements, getattr(whole, slicing.answers))
    more = cast(Elements, getattr(part, slicing.answers))
    if continues and slicing.inner is not None and answers and more:
        getattr(answers[-1], slicing.inner[1]).extend(getattr(more[0], slicing.inner[1]))
        more = more[1:]
    answers.extend(more)


def distinct(elements: list[T], key: Callable[[T], Hashable]) -> list[T]:
    """Without those whose key was there before: what is asked for twice is answered once, however much it is."""
    found: dict[Hashable, T] = {}
    for element in elements:
        found.setdefault(key(element), element)
    return list(found.values())


def check_size(key: int, request: Request) -> None:
    """Raises RemoteProtocolError: more than anybody has use for, in a request that is not cut."""
    match request:
        case ProduceRequest():
            count = sum(len(topic.partition_data) for topic in request.topic_data)
        case FetchRequest():
            count = sum(len(topic.partitions) for topic in request.topics)
        case CreateTopicsRequest() | CreatePartitionsRequest() | DescribeTopicPartitionsRequest():
            count = len(request.topics)
        case _:
            return
    if count > ELEMENTS_MAX[key]:
        raise RemoteProtocolError(
            f"a request for {count} partitions or topics; {ELEMENTS_MAX[key]} are served at a time"
        )
