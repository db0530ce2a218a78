"""For every suite."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start inherits that: commands
# that are interrupted on purpose would go on.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
