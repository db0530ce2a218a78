"""One file per Kafka API: this listing is the protocol's table of contents, as far as it is served here.

Every file has `handle(broker, context, request)`. It returns the response; or an awaitable of it when the request
has to wait (a coroutine or a future; either is cancelled when the client goes away, so whoever completes a future
looks at `done()` first); or a Deferred, which is the same without a task; or None when the client wants no
response. Of what it raises, KafkaError becomes the response's error code, RemoteProtocolError closes the
connection, and anything else is logged and becomes UNKNOWN_SERVER_ERROR. A request's strings and lists are the
handler's to keep; its records are a view of the receive buffer and mean nothing once the handler has returned,
awaitable or not.

`serve.py` has the table. This file stays empty but for these words, so that handlers may import each other.
"""
