"""Messages: structs that know their versions and how to become bytes.

`Request` and `Response` travel between clients and brokers under an API key. `Message` alone is for what Kafka writes
with the same encoding elsewhere: headers, records of internal topics, assignments of a consumer group.
"""

from __future__ import annotations

from typing import ClassVar, Self

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.bounds import BUDGET_FLOOR_BYTES, REQUEST_BUDGET_PER_BYTE, RESPONSE_BUDGET_PER_BYTE
from streamlog.wire.compiler import Buffer, Decode, Encode, compile_decoder, compile_encoder
from streamlog.wire.schema import NEVER, Struct


class _Encoders(dict[int, Encode]):
    """The encoders of one message by version, compiled when first asked for."""

    def __init__(self, message: type[Message]) -> None:
        self.message = message

    def __missing__(self, version: int) -> Encode:
        self.message.check_version(version)
        encoder = self[version] = compile_encoder(self.message, version, version >= self.message.flexible_since)
        return encoder


class _Decoders(dict[int, Decode]):
    """The decoders of one message by version, compiled when first asked for."""

    def __init__(self, message: type[Message]) -> None:
        self.message = message

    def __missing__(self, version: int) -> Decode:
        self.message.check_version(version)
        decoder = self[version] = compile_decoder(
            self.message,
            version,
            version >= self.message.flexible_since,
            BUDGET_FLOOR_BYTES,
            self.message.budget_per_byte,
        )
        return decoder


class Message(Struct):
    """A struct with versions of its own.

    Fields that a version lacks are dropped when they are ignorable, and refused otherwise when they hold something
    else than their default.
    """

    min_version: ClassVar[int] = 0
    max_version: ClassVar[int] = 0
    flexible_since: ClassVar[int] = NEVER
    budget_per_byte: ClassVar[int] = RESPONSE_BUDGET_PER_BYTE
    exact: ClassVar[bool] = True  # bytes behind the message are an error
    encoders: ClassVar[dict[int, Encode]]
    decoders: ClassVar[dict[int, Decode]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.encoders = _Encoders(cls)
        cls.decoders = _Decoders(cls)

    @classmethod
    def check_version(cls, version: int) -> None:
        """Raises LocalProtocolError if the message does not exist in `version`."""
        if not cls.min_version <= version <= cls.max_version:
            raise LocalProtocolError(
                f"{cls.__name__} has versions {cls.min_version} to {cls.max_version}, not {version}"
            )

    def encode(self, version: int) -> bytes:
        """The message's bytes, without header or size. Raises LocalProtocolError naming the field that does not fit."""
        return bytes(self.encoders[version](self, bytearray(), None))

    def encode_parts(self, version: int) -> list[Buffer]:
        """The same bytes in several buffers: record batches are the caller's own buffers, not copied."""
        parts: list[Buffer] = []
        rest = self.encoders[version](self, bytearray(), parts)
        if rest or not parts:
            parts.append(rest)
        return parts

    @classmethod
    def decode(cls, data: Buffer, version: int, position: int = 0) -> Self:
        """Read the message that starts at `position` and fills the rest of `data`.

        Record batches are views into `data`; everything else is copied. Bytes behind a request or a response are
        ignored, as Kafka 4.3 ignores them; behind other messages they are an error.
        Raises RemoteProtocolError naming the field.
        """
        message: Self
        message, end = cls.decoders[version](data, position)
        if end != len(data) and cls.exact:
            raise RemoteProtocolError(f"{len(data) - end} bytes of garbage behind {cls.__name__} version {version}")
        return message

    @classmethod
    def decode_prefix(cls, data: Buffer, version: int, position: int = 0) -> tuple[Self, int]:
        """Read the message that starts at `position`. Returns it and the position behind it."""
        return cls.decoders[version](data, position)


class Request(Message):
    """What a client sends. Its response has the same version."""

    api_key: ClassVar[int]
    budget_per_byte: ClassVar[int] = REQUEST_BUDGET_PER_BYTE
    exact: ClassVar[bool] = False


class Response(Message):
    """What answers a request."""

    api_key: ClassVar[int]
    exact: ClassVar[bool] = False
