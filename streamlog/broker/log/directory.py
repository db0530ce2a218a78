"""The data directory: every partition of this node, the checkpoint files, and who may use it.

    .lock                              held while a process uses the directory
    meta.properties                    which cluster, node and directory this is
    recovery-point-offset-checkpoint   per partition: below it nothing needs recovery
    log-start-offset-checkpoint        per partition, where DeleteRecords moved it
    replication-offset-checkpoint      per partition: high watermark
    cleaner-offset-checkpoint          per partition: compacted up to here
    .kafka_cleanshutdown               the last process left nothing to recover
    TOPIC-N/                           one partition
    TOPIC-N.UUID-delete/               one that was deleted and is being removed
    TOPIC-N.UUID-stray/                one that the cluster does not know, kept for a human to look at

Opening the directory reads the checkpoints and opens no partition: which ones belong here, with which topic id and
configs, is what the metadata log says, and `open_partition` is called for each. A directory of the right name but with
another topic id belongs to a topic that was deleted while this node was away; it is moved out of the way,
neither served nor removed.

Checkpoint entries of a partition that no longer exists would be lies about one that is created under its name
later: they are dropped before the new one appears.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress

from streamlog.broker.log.checkpoint import (
    CLEAN_SHUTDOWN_FILE,
    CLEANER_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINT_FILE,
    DamagedCheckpoint,
    TopicPartition,
    decode_meta_properties,
    decode_offsets,
    decode_partition_metadata,
    encode_meta_properties,
    encode_offsets,
    encode_partition_metadata,
    is_torn_partition_metadata,
)
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.env import DirectoryLock, Env, Storage
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.wire.uuids import uuid_from_text, uuid_to_text

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
DELETE_SUFFIX = "-delete"
STRAY_SUFFIX = "-stray"

NAME_MAX = 255
"""Bytes of a directory name. A renamed partition of a topic with a very long name loses the end of it, as in Kafka."""

ANOTHER_TOPIC_ID = uuid.UUID(int=0)
"""Stands for an id of which only the beginning is known, and that is not the expected one. No topic has it."""

_PARTITION_DIRECTORY = re.compile(r"(.+)-(\d+)")
_CHECKPOINTS = (RECOVERY_POINT_FILE, LOG_START_FILE, HIGH_WATERMARK_FILE, CLEANER_FILE)


class LogDirectory:
    def __init__(
        self, env: Env, path: str, lock: DirectoryLock, *, cluster_id: str, node_id: int, directory_id: uuid.UUID
    ) -> None:
        self._env = env
        self._lock = lock
        self.path = path
        self.cluster_id = cluster_id
        self.node_id = node_id
        self.directory_id = directory_id
        self.logs: dict[TopicPartition, PartitionLog] = {}
        """Open partitions."""
        self.offline: dict[TopicPartition, str] = {}
        """Partitions that could not be opened, and why."""
        self.topic_ids: dict[TopicPartition, uuid.UUID] = {}
        """Of the open partitions."""
        self.clean_shutdown_epoch: int | None = None
        """Broker epoch that the last process left behind; None after an unclean stop (KIP-966)."""
        self.was_clean = False
        """The last process closed everything: partitions open without recovery."""
        self.cleaner_offsets: dict[TopicPartition, int] = {}
        """Up to where each compacted partition is clean."""
        self._saved: dict[str, dict[TopicPartition, int]] = {}  # checkpoint file -> what it holds
        self._doomed: list[tuple[int, str]] = []  # (when in ms, directory to remove)
        self._present: set[TopicPartition] = set()  # has a directory here; asked for membership only

    @classmethod
    def open(cls, env: Env, path: str, *, node_id: int, cluster_id: str | None = None, now_ms: int) -> LogDirectory:
        """Take the directory, making it if need be. No partition is opened yet.

        Args:    cluster_id: must be the directory's own if both are known; a new directory without one makes one up.
        Raises:  UserError: in use, or it belongs to another node or cluster. EnvironmentFailure: damaged files.
        """
        storage = env.storage
        try:
            make_durable(storage, path)
            lock = storage.lock(f"{path}/{LOCK_FILE}")
        except OSError as error:
            why = "it is a file" if isinstance(error, (FileExistsError, NotADirectoryError)) else error.strerror
            raise UserError(f"The data directory {path} cannot be used: {why}.") from error
        if lock is None:
            raise UserError(
                f"The data directory {path} is in use by another process. Stop that one, or choose another "
                "directory with --data-dir."
            )
        try:
            directory = _identify(env, path, lock, node_id, cluster_id)
            directory._read_checkpoints()
            directory._take_clean_shutdown()
            directory._find_doomed(now_ms)
        except BaseException:
            lock.release()
            raise
        return directory

    def _read_checkpoints(self) -> None:
        self._present = set(self.existing())
        for name in _CHECKPOINTS:
            saved = self._saved[name] = self._read_checkpoint(name)
            if not saved.keys() <= self._present:
                self._save(name, {key: offset for key, offset in saved.items() if key in self._present})
        self.cleaner_offsets = dict(self._saved[CLEANER_FILE])

    def _read_checkpoint(self, name: str) -> dict[TopicPartition, int]:
        path = f"{self.path}/{name}"
        if not self._env.storage.exists(path):
            return {}
        try:
            return decode_offsets(self._env.storage.read_bytes(path))
        except DamagedCheckpoint as error:
            if name in (LOG_START_FILE, CLEANER_FILE):
                # Without them deleted records would come back; nothing else in the directory knows.
                raise EnvironmentFailure(
                    f"{path} is damaged: {error}. Restore it, or delete it to let deleted records reappear."
                ) from error
            return {}  # recovery walks everything, and replication finds the high watermark again

    def _take_clean_shutdown(self) -> None:
        """Read the marker and remove it: from now on a stop is unclean until `close`."""
        path = f"{self.path}/{CLEAN_SHUTDOWN_FILE}"
        if not self._env.storage.exists(path):
            return
        self.was_clean = True
        with suppress(ValueError, AttributeError):
            epoch = json.loads(self._env.storage.read_bytes(path) or b"{}").get("brokerEpoch")
            self.clean_shutdown_epoch = epoch if isinstance(epoch, int) and epoch >= 0 else None
        self._env.storage.remove(path)
        self._env.storage.sync_directory(self.path)

    def _find_doomed(self, now_ms: int) -> None:
        for name in self._env.storage.list(self.path):
            if name.endswith(DELETE_SUFFIX) and self._env.storage.is_directory(f"{self.path}/{name}"):
                self._doomed.append((now_ms, f"{self.path}/{name}"))

    # --- partitions ---

    def existing(self) -> list[TopicPartition]:
        """Partitions that have a directory here, open or not, sorted."""
        found: list[TopicPartition] = []
        for name in self._env.storage.list(self.path):
            match = _PARTITION_DIRECTORY.fullmatch(name)
            if match and self._env.storage.is_directory(f"{self.path}/{name}"):
                found.append((match[1], int(match[2])))
        return found

    def get(self, topic: str, partition: int) -> PartitionLog | None:
        """The open partition, if it is open."""
        return self.logs.get((topic, partition))

    def open_partition(
        self, topic: str, partition: int, topic_id: uuid.UUID, config: LogConfig, now_ms: int
    ) -> PartitionLog:
        """Open the partition, or create it where there is none. Open already: that one, whatever `config` says.

        A directory with another topic id is quarantined first. Nothing is synced: the partition's first flush does.
        Raises PartitionOffline: it is damaged (it is then listed in `offline`), or the disk fails.
        """
        key = (topic, partition)
        if key in self.logs and self.topic_ids[key] == topic_id:
            return self.logs[key]
        try:
            log = self._open(key, topic_id, config, now_ms)
        except PartitionOffline as error:
            self.offline[key] = error.message
            raise
        except OSError as error:
            self.offline[key] = str(error)
            raise PartitionOffline(f"{self.directory_of(*key)}: {error}") from error
        self.offline.pop(key, None)
        self.logs[key] = log
        self.topic_ids[key] = topic_id
        log.before_cut = lambda offset: self._lower_recovery_point(key, offset)
        return log

    def _open(self, key: TopicPartition, topic_id: uuid.UUID, config: LogConfig, now_ms: int) -> PartitionLog:
        path = self.directory_of(*key)
        is_new = not self._env.storage.is_directory(path)
        found_id = None if is_new else self._topic_id_of(key, topic_id)
        if found_id is not None and found_id != topic_id:
            self.quarantine(*key)
            is_new, found_id = True, None
        if is_new:
            self._forget_offsets(key)
            self._env.storage.make_directory(path)
            self._present.add(key)
        if found_id is None:
            self._write_topic_id(path, topic_id)
        elif not self.was_clean:
            self._write_topic_id_back(path, topic_id)
        return PartitionLog.open(
            self._env,
            path,
            config,
            recovery_point=self._saved[RECOVERY_POINT_FILE].get(key, 0),
            log_start_offset=self._saved[LOG_START_FILE].get(key, 0),
            high_watermark=self._saved[HIGH_WATERMARK_FILE].get(key, 0),
            clean_shutdown=self.was_clean and not is_new,
            may_have_gaps=config.compact or key in self.cleaner_offsets,
            now_ms=now_ms,
        )

    def _write_topic_id(self, path: str, topic_id: uuid.UUID) -> None:
        file = self._env.storage.open_file(f"{path}/{PARTITION_METADATA_FILE}", create=True)
        try:
            file.truncate(0)
            file.append(encode_partition_metadata(topic_id))
        finally:
            file.close()

    def _write_topic_id_back(self, path: str, topic_id: uuid.UUID) -> None:
        """Write the file over itself, so that the first flush writes it to the disk: a sync of the process before us
        may have failed, and then the cache has what the disk has not (see `recovery._write_back`)."""
        file = self._env.storage.open_file(f"{path}/{PARTITION_METADATA_FILE}")
        try:
            file.pwrite(encode_partition_metadata(topic_id), 0)
        finally:
            file.close()

    def _topic_id_of(self, key: TopicPartition, expected: uuid.UUID) -> uuid.UUID | None:
        """What the directory says it is; None for one whose file a crash lost, or that Kafka wrote long ago.

        The file is synced with the partition's first flush. Cut short before that it says what it can: the beginning
        of the id that is expected here, or of another.
        """
        path = f"{self.directory_of(*key)}/{PARTITION_METADATA_FILE}"
        if not self._env.storage.exists(path):
            return None
        data = self._env.storage.read_bytes(path).rstrip(b"\0")
        whole = encode_partition_metadata(expected)
        if len(data) < len(whole) and whole.startswith(data):
            return None
        try:
            return decode_partition_metadata(data)
        except DamagedCheckpoint as error:
            if is_torn_partition_metadata(data):
                return ANOTHER_TOPIC_ID
            raise PartitionOffline(f"{path} is damaged: {error}") from error

    def directory_of(self, topic: str, partition: int) -> str:
        return f"{self.path}/{topic}-{partition}"

    def delete_partition(self, topic: str, partition: int, now_ms: int) -> None:
        """Take the partition away at once; its files are removed later. Nothing happens where there is none."""
        delay_ms = 0
        log = self.logs.get((topic, partition))
        if log is not None:
            delay_ms = log.config.file_delete_delay_ms
        path = self._move_away((topic, partition), DELETE_SUFFIX)
        if path is not None:
            self._doomed.append((now_ms + delay_ms, path))

    def quarantine(self, topic: str, partition: int) -> str | None:
        """Move a partition that does not belong here out of the way, without deleting it; returns where to."""
        return self._move_away((topic, partition), STRAY_SUFFIX)

    def quarantine_strays(self, expected: Iterable[TopicPartition]) -> list[str]:
        """Quarantine every partition that the cluster does not expect on this node; returns the new paths."""
        wanted = set(expected)
        strays = [key for key in self.existing() if key not in wanted]
        return [path for path in (self.quarantine(*key) for key in strays) if path is not None]

    def _move_away(self, key: TopicPartition, suffix: str) -> str | None:
        log = self.logs.pop(key, None)
        if log is not None:
            log.abandon()
            log.failure = f"{log.directory} was moved away"
        self.topic_ids.pop(key, None)
        self.offline.pop(key, None)
        self.cleaner_offsets.pop(key, None)
        self._present.discard(key)
        source = self.directory_of(*key)
        if not self._env.storage.is_directory(source):
            return None
        ending = f".{self._env.entropy.uuid4().hex}{suffix}"
        target = f"{self.path}/{f'{key[0]}-{key[1]}'[: NAME_MAX - len(ending)]}{ending}"
        self._env.storage.rename(source, target)
        return target

    # --- checkpoints ---

    # Always written on the event loop, never by a thread: a truncation has to lower a recovery point before it cuts
    # (`_lower_recovery_point`), and a thread that is about to put an older file in place would undo that. One file
    # takes a few milliseconds.

    def save_checkpoints(self) -> None:
        """Write the checkpoint files that have changed. Blocks."""
        for name, offsets in self.unsaved().items():
            self._save(name, offsets)

    def save_recovery_points(self) -> None:
        """Write that one file: the others may be a minute old without harm. Blocks."""
        self._save(RECOVERY_POINT_FILE, self._offsets_to_save()[RECOVERY_POINT_FILE])

    def save_log_starts(self) -> None:
        """Write that one file: deleted records must not come back after whoever deleted them was told. Blocks."""
        offsets = self._offsets_to_save()[LOG_START_FILE]
        if offsets != self._saved[LOG_START_FILE]:
            self._save(LOG_START_FILE, offsets)

    def unsaved(self) -> dict[str, dict[TopicPartition, int]]:
        """The checkpoint files whose content has changed since they were written, with what to write."""
        return {name: offsets for name, offsets in self._offsets_to_save().items() if offsets != self._saved[name]}

    def _offsets_to_save(self) -> dict[str, dict[TopicPartition, int]]:
        """What each checkpoint file should hold now. Partitions that are not open keep their entries."""
        closed = self._present - self.logs.keys()
        offsets = {
            name: {key: offset for key, offset in self._saved[name].items() if key in closed} for name in _CHECKPOINTS
        }
        for key, log in self.logs.items():
            offsets[RECOVERY_POINT_FILE][key] = log.recovery_point
            offsets[HIGH_WATERMARK_FILE][key] = log.high_watermark
            if log.log_start_offset > 0:
                offsets[LOG_START_FILE][key] = log.log_start_offset
        offsets[CLEANER_FILE].update(self.cleaner_offsets)
        return offsets

    def _save(self, name: str, offsets: dict[TopicPartition, int]) -> None:
        self._env.storage.write_atomic(f"{self.path}/{name}", encode_offsets(offsets))
        self._saved[name] = offsets

    def _forget_offsets(self, key: TopicPartition) -> None:
        """Before a partition is created: what the files say of an earlier one of that name must go."""
        for name in _CHECKPOINTS:
            if key in self._saved[name]:
                self._save(name, {other: offset for other, offset in self._saved[name].items() if other != key})

    def _lower_recovery_point(self, key: TopicPartition, offset: int) -> None:
        """A truncation below what the file promises is about to happen. Blocks: it must be on disk first."""
        saved = self._saved[RECOVERY_POINT_FILE]
        if saved.get(key, 0) > offset:
            self._save(RECOVERY_POINT_FILE, {**saved, key: offset})

    # --- cleaning up ---

    def take_doomed(self, now_ms: int) -> tuple[list[str], list[str]]:
        """(files, directories) that have waited long enough and are to be removed now, by a thread."""
        files: list[str] = []
        for log in self.logs.values():
            files.extend(path for at_ms, path in log.doomed if at_ms <= now_ms)
            log.doomed = [(at_ms, path) for at_ms, path in log.doomed if at_ms > now_ms]
        directories = [path for at_ms, path in self._doomed if at_ms <= now_ms]
        self._doomed = [(at_ms, path) for at_ms, path in self._doomed if at_ms > now_ms]
        return files, directories

    def remove(self, files: list[str], directories: list[str]) -> None:
        """Remove what `take_doomed` named. Blocks. What is gone already does not matter."""
        for path in files:
            with suppress(FileNotFoundError):
                self._env.storage.remove(path)
        for path in directories:
            with suppress(FileNotFoundError):
                self._env.storage.remove_tree(path)

    # --- leaving ---

    def close(self, *, broker_epoch: int = -1) -> None:
        """Close every partition so that the next start has nothing to recover, and let go of the directory. Blocks.

        What the disk refuses is logged; the next start has something to recover then.
        """
        is_clean = True
        for log in self.logs.values():
            try:
                log.close()
                is_clean = is_clean and log.failure is None
            except PartitionOffline:
                is_clean = False
        try:
            self.save_checkpoints()
            if is_clean:
                marker = json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":"))
                self._env.storage.write_atomic(f"{self.path}/{CLEAN_SHUTDOWN_FILE}", marker.encode())
        except OSError as error:
            logger.error("directory=%s not closed cleanly: %s", self.path, error)
        finally:
            self.logs.clear()
            self._lock.release()

    def abandon(self) -> None:
        """Let go without saving anything, as a crash would."""
        for log in self.logs.values():
            log.abandon()
        self.logs.clear()
        self._lock.release()


def make_durable(storage: Storage, path: str) -> None:
    """Make the directory and its parents, and sync the names: all that is ever promised lies below them."""
    if storage.is_directory(path):
        return
    parent = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    if parent != path:
        make_durable(storage, parent)
    storage.make_directory(path)
    storage.sync_directory(parent)


def _identify(env: Env, path: str, lock: DirectoryLock, node_id: int, cluster_id: str | None) -> LogDirectory:
    """Read `meta.properties`, or write it into a new directory. Raises UserError, EnvironmentFailure."""
    file = f"{path}/{META_PROPERTIES_FILE}"
    if not env.storage.exists(file):
        cluster_id = cluster_id or uuid_to_text(env.entropy.uuid4())
        directory_id = env.entropy.uuid4()
        data = encode_meta_properties(cluster_id=cluster_id, node_id=node_id, directory_id=directory_id)
        env.storage.write_atomic(file, data)
        return LogDirectory(env, path, lock, cluster_id=cluster_id, node_id=node_id, directory_id=directory_id)
    try:
        properties = decode_meta_properties(env.storage.read_bytes(file))
        directory_id = uuid_from_text(properties.get("directory.id", uuid_to_text(uuid.UUID(int=0))))
    except (DamagedCheckpoint, ValueError) as error:
        raise EnvironmentFailure(f"{file} is damaged: {error}") from error
    if properties["node.id"] != str(node_id):
        raise UserError(f"The data directory {path} belongs to node {properties['node.id']}, not to node {node_id}.")
    if cluster_id is not None and properties["cluster.id"] != cluster_id:
        raise UserError(
            f"The data directory {path} belongs to cluster {properties['cluster.id']}, not to {cluster_id}. "
            "Choose another directory with --data-dir, or join the right cluster."
        )
    return LogDirectory(
        env, path, lock, cluster_id=properties["cluster.id"], node_id=node_id, directory_id=directory_id
    )
