"""What a record costs in the record codec: compiled, interpreted, and kafka-python on the same records.

    python bench/codec.py [--records N] [--value-bytes N] [--rounds N]

The sides take turns within one run, because a shared machine changes its speed from minute to minute: read the
ratios, not the nanoseconds. Each figure is the best of its rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from streamlog.wire import records_codec
from streamlog.wire.compression import compress, decompress
from streamlog.wire.records import HEADER_BYTES, Compression, encode_batch
from streamlog.wire.records_codec import Codec

BASE_MS = 1_700_000_000_000


Tasks = dict[str, Callable[[], object]]


def codec_work(codec: Codec, keys: list[bytes], values: list[bytes], timestamps_ms: list[int]) -> Tasks:
    section = bytes(codec.encode_records(keys, values, timestamps_ms, None, BASE_MS, None)[HEADER_BYTES:])

    def append() -> None:
        put = codec.RecordAppender().append
        for key, value, timestamp_ms in zip(keys, values, timestamps_ms, strict=True):
            put(key, value, timestamp_ms)

    return {
        "encode a batch": lambda: codec.encode_records(keys, values, timestamps_ms, None, BASE_MS, None),
        "append one by one": append,
        "decode a batch": lambda: codec.decode_records(section, len(keys), 0, BASE_MS, None),
    }


def kafka_python_work(keys: list[bytes], values: list[bytes], timestamps_ms: list[int]) -> Tasks:
    batch = bytes(encode_batch(keys=keys, values=values, timestamps_ms=timestamps_ms))

    def encode() -> None:
        builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
        for offset, (key, value, timestamp_ms) in enumerate(zip(keys, values, timestamps_ms, strict=True)):
            builder.append(offset, timestamp_ms, key, value, [])
        builder.build()

    return {
        "encode a batch": encode,
        "append one by one": encode,
        "decode a batch": lambda: list(DefaultRecordBatch(batch)),
    }


def best_ns(work: dict[str, Tasks], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Nanoseconds per record for each side and task, the sides taking turns."""
    best: dict[str, dict[str, float]] = {side: dict.fromkeys(tasks, float("inf")) for side, tasks in work.items()}
    for _ in range(rounds):
        for side, tasks in work.items():
            for task, run in tasks.items():
                started_ns = time.perf_counter_ns()
                run()
                best[side][task] = min(best[side][task], (time.perf_counter_ns() - started_ns) / count)
    return best


def print_compressions(section: bytes, rounds: int) -> None:
    print(f"\n{'':20}{'ratio':>8}{'compress MB/s':>16}{'decompress MB/s':>18}")
    for kind in list(Compression)[1:]:
        packed = bytes(compress(section, kind))
        tasks: Tasks = {
            "pack": lambda kind=kind: compress(section, kind),  # type: ignore[misc]
            "unpack": lambda kind=kind, packed=packed: decompress(packed, kind),  # type: ignore[misc]
        }
        ns = best_ns({"": tasks}, len(section), rounds)[""]
        print(
            f"{kind.name.lower():20}{len(section) / len(packed):8.1f}{1e3 / ns['pack']:16.0f}{1e3 / ns['unpack']:18.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--value-bytes", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    count = arguments.records
    keys = [b"key-%06d" % number for number in range(count)]
    values = [(b'{"event": %d, "carrier": "UA"} ' % number * 20)[: arguments.value_bytes] for number in range(count)]
    timestamps_ms = [BASE_MS + number // 3 for number in range(count)]

    work = {"kafka-python": kafka_python_work(keys, values, timestamps_ms)}
    work["interpreted"] = codec_work(records_codec.interpreted_codec(), keys, values, timestamps_ms)
    compiled = records_codec.compiled_codec()
    if compiled is None:
        print("The compiled codec was not built here.\n")
    else:
        work["compiled"] = codec_work(compiled, keys, values, timestamps_ms)
    best = best_ns(work, count, arguments.rounds)
    fastest = list(work)[-1]
    print(f"ns per record of {arguments.value_bytes} B values, and how many times the {fastest} codec's")
    print(f"{'':20}" + "".join(f"{side:>22}" for side in work))
    for task in best[fastest]:
        cells = (f"{best[side][task]:.0f} ({best[side][task] / best[fastest][task]:.1f}x)" for side in work)
        print(f"{task:20}" + "".join(f"{cell:>22}" for cell in cells))
    section = bytes(encode_batch(keys=keys, values=values, timestamps_ms=timestamps_ms)[HEADER_BYTES:])
    print_compressions(section, arguments.rounds)


if __name__ == "__main__":
    main()
