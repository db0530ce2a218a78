"""`make demo`: the app in flights.py at work on a year of flights, and every table of it held against pandas.

The first act runs one worker, stops it cleanly in the middle and starts it again. The second adds a second worker and
stops the first one while flights keep coming. Then all tables are read through `streamlog.connect`, shown, and
compared; any difference is shown and makes the exit code 1.

    python -m examples.flights_demo [--broker kafka://HOST:PORT] [--data-dir DIR] [--flights N]

The acts are in flights_acts.py. They need pandas, whose import takes a second: who presses Ctrl-C meanwhile should see
no traceback of whatever was being imported just then.
"""

from __future__ import annotations

import signal
import sys

from streamlog.__main__ import end_at_once


def main() -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants it ignored, as nohup does
        signal.signal(signal.SIGINT, end_at_once)
    from examples.flights_acts import main as play

    return play()


if __name__ == "__main__":
    sys.exit(main())
