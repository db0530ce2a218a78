"""One exception tree for everything streamlog raises.

Who is at fault decides the branch, because that decides what a caller can do:

    StreamlogError
    |- UserError              the program or the command line is wrong; the message says what to change
    |- KafkaError             the protocol said no, with an error code; `retriable` says whether to try again
    |- RemoteProtocolError    the peer sent bytes that are not the protocol: close that connection, carry on
    |- LocalProtocolError     we were asked to send something the protocol cannot carry
    `- EnvironmentFailure     disk, network or time ran out; the message names the file or the address

A broken invariant of our own is none of these: it is an `assert` with a sentence.
"""

from __future__ import annotations


class StreamlogError(Exception):
    """Base of every exception that streamlog raises on purpose."""


class UserError(StreamlogError):
    """The caller's program, configuration or command line is wrong.

    The message has to stand alone, without a traceback: what happened, where, and what to do next.
    """


class RemoteProtocolError(StreamlogError):
    """The peer's bytes are not the protocol. The connection they came on is closed; nothing else suffers."""


class LocalProtocolError(StreamlogError):
    """A value of ours does not fit the protocol (a field that the version cannot carry, a string too long)."""


class EnvironmentFailure(StreamlogError):
    """Disk, network or a deadline failed us, in a place where a policy exists for it."""
