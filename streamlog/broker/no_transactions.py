"""The refusal of whoever asks for transactions: there is no transaction coordinator yet.

TRANSACTIONAL_ID_AUTHORIZATION_FAILED is the one answer that every client takes as final, to FindCoordinator and to
InitProducerId alike; librdkafka asks again until its timeout after any other
(docs/decisions/0022-no-transactions-yet.md). It does not say why, so the broker's log does.
"""

from __future__ import annotations

import logging

from streamlog.broker.context import RequestContext
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)

WHY = "this broker has no transaction coordinator: transactional producers are not supported yet"


def refuse_transactions(context: RequestContext, transactional_id: str) -> KafkaError:
    """The error to answer with, logged once for each connection: a client that insists must not fill the log."""
    if not context.connection.transactions_refused:
        context.connection.transactions_refused = True
        log.warning(
            "transactional id %r of client %r at %s is refused: %s",
            transactional_id,
            context.client_id,
            context.client_host,
            WHY,
        )
    return KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, WHY)
