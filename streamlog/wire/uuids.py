"""Kafka's way to write a uuid down: URL-safe base64 without padding, 22 characters.

In this form topic ids, directory ids and cluster ids stand in files, logs and command output.
"""

from __future__ import annotations

import base64
from uuid import UUID

METADATA_TOPIC_ID = UUID(int=1)
"""The id of __cluster_metadata; never given to another topic."""

TEXT_LENGTH = 22


def uuid_to_text(uuid: UUID) -> str:
    return base64.urlsafe_b64encode(uuid.bytes).rstrip(b"=").decode()


def uuid_from_text(text: str) -> UUID:
    """Reads what `uuid_to_text` writes, with or without padding. Raises: ValueError."""
    bare = text.rstrip("=")
    try:
        uuid = UUID(bytes=base64.urlsafe_b64decode(bare + "=="))
    except ValueError:
        uuid = None
    if uuid is None or uuid_to_text(uuid) != bare:
        raise ValueError(f"{text!r:.40} is not a uuid in {TEXT_LENGTH} characters of URL-safe base64")
    return uuid
