"""One save at a time in a thread of its own, so that frames go on being compounded while files are written."""

from __future__ import annotations

import threading
from collections.abc import Callable

from usx_common.errors import UsxError
from usx_compounding.sweep import Sweep

Answer = Callable[[bool, str], None]


class BackgroundSave:
    """``save``: writes a sweep's volumes and returns a sentence; raises UsxError when it cannot."""

    def __init__(self, save: Callable[[Sweep, int], str]) -> None:
        self._save = save
        self._thread: threading.Thread | None = None
        self._answer: Answer | None = None

    def begin(self, sweep: Sweep, number: int, answer: Answer) -> None:
        """Write ``sweep``, which nobody changes any more, and then ``answer`` success and a sentence.

        Called by one thread only. The caller has asked `check_free`.
        """
        self._thread = threading.Thread(target=self._run, args=(sweep, number, answer), name="saving", daemon=True)
        self._answer = answer
        self._thread.start()

    def check_free(self) -> None:
        """Raise UsxError while a save is under way."""
        if self._thread is not None:
            raise UsxError("a save is under way; ask again when it is finished")

    def close(self, timeout: float = 5.0) -> None:
        """Wait for a save under way, ``timeout`` seconds at most; whoever still waits for it is told."""
        thread, answer = self._thread, self._answer
        if thread is not None and answer is not None:
            thread.join(timeout)
            answer(False, "the node ended before the save was finished")

    def _run(self, sweep: Sweep, number: int, answer: Answer) -> None:
        try:
            success, message = True, self._save(sweep, number)
        except UsxError as error:
            success, message = False, str(error)
        except Exception as error:  # a service call must get an answer, whatever happened
            success, message = False, f"save failed: {error}"
        self._thread = None  # before the answer: who has it may save again
        answer(success, message)
