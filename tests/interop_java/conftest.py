"""Apache Kafka's own code as an oracle. `make interop-java` fetches the jars and runs these tests."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class KafkaRefused(Exception):
    """Kafka's classes threw."""


class KafkaCodec:
    """A JVM that reads and writes messages with Kafka's generated classes."""

    def __init__(self, libs: Path) -> None:
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*", str(HERE / "KafkaCodec.java")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def echo(self, name: str, version: int, data: bytes) -> tuple[bytes, int]:
        """What Kafka writes after it has read `data`, and how many bytes of it were left."""
        return self._ask(name, version, struct.pack(">i", len(data)) + data)

    def default(self, name: str, version: int) -> bytes:
        """What Kafka writes for a message nobody has touched."""
        return self._ask(name, version, struct.pack(">i", -1))[0]

    def _ask(self, name: str, version: int, question: bytes) -> tuple[bytes, int]:
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">H", len(name)) + name.encode() + struct.pack(">h", version) + question)
        self.process.stdin.flush()
        (length,) = struct.unpack(">i", self._read(4))
        if length < 0:
            (text_length,) = struct.unpack(">H", self._read(2))
            raise KafkaRefused(self._read(text_length).decode())
        (left,) = struct.unpack(">i", self._read(4))
        return self._read(length), left

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = self.process.stdout.read(size)
        assert len(data) == size, "the JVM has ended"
        return data


@dataclass(frozen=True)
class Said:
    """What a tool left behind."""

    code: int
    out: str
    err: str


class KafkaTools:
    """A JVM that runs Kafka's command line tools one after another, many times faster than a JVM for each."""

    def __init__(self, libs: Path) -> None:
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        command = ["java", *options, "-cp", f"{libs}/*", str(HERE / "KafkaTools.java")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def run(self, main_class: str, *arguments: str) -> Said:
        """One tool, to its end."""
        assert self.process.stdin is not None
        words = [word.encode() for word in (main_class, *arguments)]
        question = b"".join(struct.pack(">H", len(word)) + word for word in words)
        self.process.stdin.write(struct.pack(">i", len(words)) + question)
        self.process.stdin.flush()
        (code,) = struct.unpack(">i", self._read(4))
        out, err = (self._read(struct.unpack(">i", self._read(4))[0]).decode() for _ in range(2))
        return Said(code, out, err)

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = self.process.stdout.read(size)
        assert len(data) == size, "the JVM has ended"
        return data


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    """The directory of Kafka's jars."""
    libs = Path(os.environ.get("STREAMLOG_KAFKA_LIBS", HERE.parents[1] / "target" / "kafka-libs"))
    if shutil.which("java") is None or not any(libs.glob("kafka-clients-*.jar")):
        pytest.skip("needs a JDK 17 and Apache Kafka's jars: make interop-java")
    return libs


@pytest.fixture(scope="session")
def kafka_tools(kafka_libs: Path) -> Iterator[KafkaTools]:
    tools = KafkaTools(kafka_libs)
    yield tools
    tools.close()


@pytest.fixture(scope="session")
def kafka_codec(kafka_libs: Path) -> Iterator[KafkaCodec]:
    codec = KafkaCodec(kafka_libs)
    yield codec
    codec.close()
