"""How much one peer, and all peers together, may ask of this process. Every number says what it prevents."""

from __future__ import annotations

READ_SCRATCH_BYTES = 256 * 1024
"""The buffer that all connections without a half-received frame read into. One per server, so an idle connection holds
no buffer at all; large enough that a burst of pipelined requests arrives, and is answered, in one go."""

READ_REST_BYTES_MAX = 4 * 1024
"""A half frame up to this size is copied back to the front of the scratch buffer before the next read, so that a
stream of small requests keeps its large reads. More would let a peer that sends byte by byte buy copies cheaply."""

READ_BUFFER_BYTES_MIN = 64 * 1024
"""The first buffer of a connection's own, once the rest of a frame is larger than READ_REST_BYTES_MAX, and how far
a connection reads ahead while a request of it waits. A peer costs this much, whatever size it announced."""

READ_BUFFER_RETAINED_BYTES_MAX = 4 * 1024 * 1024
"""A larger buffer is given back as soon as its frame is answered; up to this it stays until the connection is idle,
so that a producer of 1 MB requests does not allocate for each of them."""

READ_MEMORY_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of half-received frames, all connections together. Past it a frame waits for room before it grows. Kafka has
no such limit by default, and runs out of memory when two hundred peers send most of a 100 MB frame and stall."""

FRAME_START_MS_MAX = 10_000
"""A frame that has begun gets this long for free; afterwards it must keep up FRAME_BYTES_PER_SECOND_MIN."""

FRAME_BYTES_PER_SECOND_MIN = 4 * 1024
"""Slower than this over the life of a frame is a peer that holds memory without meaning to finish (slowloris).
A real client on the worst link sends more."""

OVERLAPPED_REQUESTS_MAX = 1_000
"""Produce requests of one connection that may wait for the disk together, so that one fdatasync serves them all.
Each costs a small object; past this the connection is read no further until some are answered."""

WRITE_BUFFER_HIGH_BYTES = 1024 * 1024
"""Response bytes a peer may leave unread before its next request has to wait. One response may exceed it, so a
connection buffers at most this and one response."""

WRITE_BUFFER_LOW_BYTES = 256 * 1024
"""Where a connection that waited for its peer to read goes on."""

WRITE_JOIN_BYTES_MAX = 16 * 1024
"""Parts smaller than this are joined into one write: a copy of a few hundred bytes is cheaper than another element
in writev. Larger ones, record batches above all, are never copied."""

WRITE_MEMORY_BYTES_MAX = 512 * 1024 * 1024
"""Response bytes that all peers together may leave unread. Past it the peers that have not read for
WRITE_STALL_MS_MAX are disconnected, largest first."""

WRITE_STALL_MS_MAX = 10_000
"""How long a peer may read nothing while memory for responses is short. With memory to spare nobody is hurried: a
consumer that works for minutes between two polls is an ordinary consumer."""

FETCH_RESPONSE_BYTES_MAX = 16 * 1024 * 1024
"""The most one fetch response carries, whatever `max_bytes` says (one batch larger than this is still served alone).
Kafka sends files from the page cache; we hold a response in memory until the peer has read it."""

SWEEP_MS = 1_000
"""How often deadlines of connections are looked at. Their clock ticks this coarsely, so that a read costs no clock."""

LISTEN_BACKLOG = 512
"""Connections the kernel holds before we accept them. Kafka's 50 drops some of a restarting cluster's clients."""

SHUTDOWN_GRACE_MS = 2_000
"""How long a stopping server waits for responses under way to be written and read."""

CONNECTIONS_MAX = 100_000
"""Whatever max.connections says. An idle connection costs a few kilobytes; a process has fewer descriptors anyway."""
