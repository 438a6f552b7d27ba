"""torchvision without its compiled operators: several rooms may ask for it at once."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOGETHER = """
import sys, threading
from pttp.vision import torchvision
sys.setswitchinterval(1e-6)
start, failed = threading.Barrier(8), []

def ask():
    start.wait()
    try:
        torchvision().models
    except Exception as error:
        failed.append(error)

threads = [threading.Thread(target=ask) for _ in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
assert not failed, failed
"""


def test_threads_that_ask_together():
    subprocess.run([sys.executable, "-c", TOGETHER], cwd=ROOT, check=True, timeout=120)
