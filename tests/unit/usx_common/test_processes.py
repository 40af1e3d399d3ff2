"""Processes that share work: one thread each, what they are given at their start, and gone with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from usx_common.processes import ONE_THREAD, one_thread_pool

PARENT = """
import sys, time
from pathlib import Path
from test_processes import sleep_long
from usx_common.processes import one_thread_pool

if __name__ == "__main__":
    with one_thread_pool(2) as pool:
        list(pool.map(sleep_long, [sys.argv[1]] * 2))
"""
_told = 0


def tell(number):
    global _told
    _told = number


def told(_):
    return _told, {name: os.environ[name] for name in ONE_THREAD}


def sleep_long(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def test_workers_have_one_thread_and_what_they_are_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with one_thread_pool(2, tell, (5,)) as pool:
        assert list(pool.map(told, range(3))) == [(5, ONE_THREAD)] * 3
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    (busy := tmp_path / "busy").mkdir()
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(busy)],
                              env={**os.environ, "PYTHONPATH": paths})
    try:
        assert _within(60.0, lambda: len(list(busy.iterdir())) == 2)
        workers = [int(path.name) for path in busy.iterdir()]
        assert all(_alive(worker) for worker in workers)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait(10.0)
    assert _within(20.0, lambda: not any(_alive(worker) for worker in workers))


def _alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _within(seconds, done):
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()
