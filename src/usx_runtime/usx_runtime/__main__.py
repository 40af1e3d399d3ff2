"""`python -m usx_runtime ...` is `usx ...`."""

import sys

from usx_runtime.cli import main

sys.exit(main())
