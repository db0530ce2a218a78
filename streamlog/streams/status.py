"""What a worker says about itself: values, for the command line, the web pages and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamlog.streams.task import Task


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One consumed partition of a task."""

    topic: str
    partition: int
    position: int
    """Exclusive end of what was fed to the lanes."""
    committed: int
    end_offset: int | None
    """Exclusive end of the log, as last heard."""
    stopped: bool

    @property
    def lag(self) -> int | None:
        """Records that are in the log and not committed."""
        return None if self.end_offset is None else max(0, self.end_offset - self.committed)


@dataclass(frozen=True, slots=True)
class RestoreStatus:
    """One table of a task that is catching up with its changelog."""

    table: str
    restored: int
    """Offsets done."""
    total: int
    """Offsets to do in all."""
    rate: float
    """Offsets per second."""
    blocked: str | None
    """Why nothing moves, when nothing has for a while."""


@dataclass(frozen=True, slots=True)
class LateStatus:
    """Writes to one table with windows that came after their window was closed, and were dropped."""

    table: str
    count: int
    """Since the task came to this worker."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task of this worker."""

    number: int
    state: str
    partitions: tuple[PartitionStatus, ...]
    restoring: tuple[RestoreStatus, ...]
    failures: tuple[str, ...]
    """Why partitions of it stand still, if any do."""
    late: tuple[LateStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker at one moment."""

    app_id: str
    process_id: str
    endpoint: str | None
    state: str
    """starting, running, stopping or stopped"""
    leader: bool
    """Whether it owns task 0, and so runs what is `on_leader`."""
    tasks: tuple[TaskStatus, ...]
    commits: int
    commit_took_ms: int
    committed_at_ms: int
    error: str | None
    """What the worker is struggling with just now, such as a broker that is away."""
    processed_again: int = 0
    """Events that this worker processed more than once, because their outputs were lost on the way."""

    @property
    def healthy(self) -> bool:
        """Whether every partition moves."""
        return self.state == "running" and self.error is None and not any(task.failures for task in self.tasks)


def task_status(task: Task, *, restoring: Sequence[RestoreStatus], error: str | None) -> TaskStatus:
    """A task just now. `error`: why it could not be opened."""
    failures = [str(failure) for failure in task.failures]
    return TaskStatus(
        number=task.number,
        state=task.state.value,
        partitions=tuple(
            PartitionStatus(
                source.topic,
                source.partition,
                source.position,
                task.committed_offset(source.topic),
                source.end_offset,
                source.stopped,
            )
            for _, source in sorted(task.sources.items())
        ),
        restoring=tuple(restoring),
        failures=tuple(failures if error is None else [*failures, error]),
        late=tuple(LateStatus(table, count) for table, count in sorted(task.late.counts.items())),
    )
