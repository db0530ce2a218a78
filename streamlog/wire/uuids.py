"""Kafka's way to write a uuid down: URL-safe base64 without padding, 22 characters.

In this form topic ids, directory ids and cluster ids stand in files, logs and command output.
"""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

METADATA_TOPIC_ID = UUID(int=1)
"""The id of __cluster_metadata; never given to another topic."""

TEXT_LENGTH = 22


def uuid_to_text(uuid: UUID) -> str:
    return base64.urlsafe_b64encode(uuid.bytes).rstrip(b"=").decode()


def uuid_from_text(text: str) -> UUID:
    """Raises: ValueError."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r:.40} is not a base64 uuid: {error}") from None
    if len(raw) != 16:
        raise ValueError(f"{text!r:.40} is {len(raw)} bytes; a uuid has 16")
    return UUID(bytes=raw)
