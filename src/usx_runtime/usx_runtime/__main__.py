"""`python -m usx_runtime ...` is `usx ...`; it is how the embedded launch starts nodes."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt during the imports ends the process without a traceback
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the launcher blocks it while the interpreter starts

from usx_runtime.cli import main  # noqa: E402

sys.exit(main())
