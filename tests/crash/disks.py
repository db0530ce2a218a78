"""Disks whose power can be cut: images of ext4, mounted, copied at one instant, and mounted again as the copy.

kill -9 leaves the page cache, so it cannot tell whether anything was ever synced. Here a directory is the root of a
small ext4 in an image file, and what a power cut leaves is that file, read while the file system is in use: what was
only in the page cache is not in it, and mounting the copy replays the journal as a boot would.

The copy has to be of one instant. An image read from its beginning to its end while it is written would have its first
half from before and its second half from after a sync, which no disk ever has. So images lie on a file system of their
own, the rack, and that is frozen while they are copied: writes to a disk wait, in the middle of a sync if need be.

What this does not show: a disk with a write cache that loses writes it called done, or reorders them before a flush.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

FIFREEZE: Final = 0xC0045877
FITHAW: Final = 0xC0045878
"""<linux/fs.h>"""

MIB: Final = 1024 * 1024
DISK_BYTES: Final = 256 * MIB
RACK_BYTES: Final = 4096 * MIB
"""Files with holes, both: they take what is written."""

MEMORY: Final = Path("/dev/shm")
"""Where racks lie if that is there: nobody has to wait for a real disk."""

UNMOUNT_SECONDS_MAX: Final = 5.0


class Disk:
    """An ext4 file system in an image; `path` is where it is mounted, before a cut and after."""

    def __init__(self, rack: Rack, name: str) -> None:
        self.path = rack.mounts / name
        self._rack, self._name = rack, name
        self._count = 0
        self.path.mkdir()
        _make_ext4(self._image, DISK_BYTES)
        self._mount()

    @property
    def _image(self) -> Path:
        return self._rack.images / f"{self._name}-{self._count}"

    def copy(self) -> Path:
        """What the disk has at this moment; only while the rack is frozen."""
        copy = self._rack.copies / self._name
        _run("cp", "--sparse=always", str(self._image), str(copy))
        return copy

    def replace(self, copy: Path, *options: str) -> None:
        """Mount a copy instead, with options of ext4. Nobody may use the old one any more."""
        old = self._image
        _unmount(self.path)
        self._count += 1  # another file: what the page cache still has of the old one is written into the old one
        _run("cp", "--sparse=always", str(copy), str(self._image))
        copy.unlink()
        old.unlink()
        self._mount(*options)

    def close(self) -> None:
        _unmount(self.path)

    def _mount(self, *options: str) -> None:
        _run("mount", "-o", ",".join(["loop", "noatime", *options]), str(self._image), str(self.path))


class Rack:
    """Disks that lose their power at the same instant."""

    def __init__(self, directory: Path) -> None:
        """Below `directory`, which the disks' mount points are in; the images are in memory where that is possible."""
        base = MEMORY if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > RACK_BYTES else directory
        self._directory = directory
        self._file = base / f"streamlog-rack-{os.getpid()}-{directory.name}-{time.monotonic_ns()}"
        self.images, self.mounts, self.copies = directory / "rack", directory / "disks", directory / "copies"
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        for made in (self.images, self.mounts, self.copies):
            made.mkdir(parents=True)
        with ExitStack() as undo:
            # A container or a network namespace that is made meanwhile takes our mounts along, and gives them up
            # together with us only if they are shared.
            _run("mount", "--bind", str(self._directory), str(self._directory))
            undo.callback(_unmount, self._directory)
            _run("mount", "--make-shared", str(self._directory))
            undo.callback(self._file.unlink)
            _make_ext4(self._file, RACK_BYTES)
            _run("mount", "-o", "loop,noatime", str(self._file), str(self.images))
            undo.callback(_unmount, self.images)
            self._undo = undo.pop_all()
        return self

    def disk(self, name: str) -> Disk:
        made = Disk(self, name)
        self._undo.callback(made.close)
        return made

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing reaches the disks from here on; whoever syncs waits for the end of the block."""
        rack = os.open(self.images, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(rack, FIFREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(rack, FITHAW, 0)
        finally:
            os.close(rack)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


def why_not(directory: Path) -> str:
    """Why no disk can be made here; empty when one can."""
    if os.geteuid() != 0:
        return "images of disks can only be mounted by root"
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount", "cp") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not on PATH"
    try:
        with Rack(directory) as rack:
            rack.disk("probe")
            with rack.frozen():
                pass
    except (subprocess.CalledProcessError, OSError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"no image can be mounted and frozen here: {said}"
    return ""


def _make_ext4(file: Path, size_bytes: int) -> None:
    with file.open("xb") as image:
        image.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(file))


def _unmount(path: Path) -> None:
    """Now, or, if somebody does not let go of it, as soon as he does."""
    give_up_at = time.monotonic() + UNMOUNT_SECONDS_MAX
    while subprocess.run(["umount", str(path)], capture_output=True).returncode != 0:
        if time.monotonic() > give_up_at:
            _run("umount", "--lazy", str(path))
            return
        time.sleep(0.01)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
