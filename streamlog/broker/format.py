"""Making a data directory for a node of a new cluster, as `kafka-storage format` does.

A single broker formats its directory when it starts: there is nobody to disagree with. Nodes of a quorum have to be
told beforehand which cluster they are of, and most of them who the first voters are.
"""

from __future__ import annotations

from uuid import UUID

from streamlog.broker.log.checkpoint import (
    META_PROPERTIES_FILE,
    DamagedCheckpoint,
    decode_meta_properties,
    encode_meta_properties,
)
from streamlog.broker.log.directory import make_durable
from streamlog.broker.raft.quorum import DIRECTORY_NAME, format_metadata_log
from streamlog.broker.raft.voters import VoterSet
from streamlog.env import Env
from streamlog.errors import UserError
from streamlog.wire.schema import ZERO_UUID
from streamlog.wire.uuids import uuid_from_text


def format_directory(env: Env, data_dir: str, *, cluster_id: str, node_id: int, voters: VoterSet | None = None) -> UUID:
    """Make `data_dir` one of `cluster_id`. Returns its directory id.

    `voters`: the first voters, where the quorum's log is to say who votes; one of them may be this node. None where the
    settings name the voters, and for a node that joins later. None also for a directory in the place of one that was
    lost: formatted as the old one it would vote without knowing what that has promised.
    Raises UserError: the directory is formatted already.
    """
    path = f"{data_dir}/{META_PROPERTIES_FILE}"
    if env.storage.exists(path):
        raise UserError(f"The data directory {data_dir} is formatted already.")
    make_durable(env.storage, data_dir)
    mine = None if voters is None else voters.get(node_id)
    known = ZERO_UUID if mine is None else mine.key.directory_id
    directory_id = env.entropy.uuid4() if known == ZERO_UUID else known
    if voters is not None:
        format_metadata_log(env, f"{data_dir}/{DIRECTORY_NAME}", voters, env.clock.wall_ms())
    data = encode_meta_properties(cluster_id=cluster_id, node_id=node_id, directory_id=directory_id)
    env.storage.write_atomic(path, data)
    return directory_id


def read_directory_id(env: Env, data_dir: str) -> UUID:
    """Raises UserError where the directory does not say."""
    path = f"{data_dir}/{META_PROPERTIES_FILE}"
    try:
        return uuid_from_text(decode_meta_properties(env.storage.read_bytes(path))["directory.id"])
    except (OSError, DamagedCheckpoint, KeyError, ValueError) as error:
        raise UserError(f"{path} does not say the directory's id: {error}") from error
