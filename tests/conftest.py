"""Fixtures that several test files share."""
from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as app.py does, before any test imports torch

from tests import corpus  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where several processes share the tests, one of them has all of the browser's: one page, one Chromium, and nothing measured beside itself."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if "browser/" in nodeid else nodeid

    return Scheduler(config, log)


@pytest.fixture(autouse=True)
def alone(request, tmp_path_factory):
    """A test that is marked `alone` measures time, or plays a crowd: it waits for the tests of the other processes, and they for it. Who waits to be alone holds the
    gate, so that no other test slips in."""
    import fcntl

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder
    with (folder / "gate").open("w") as gate, (folder / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.fixture(autouse=True)
def as_many_threads_after_as_before():
    """Recipes set the number of threads, and another number is another last digit for every test that follows."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cases(tmp_path_factory) -> dict[str, corpus.Case]:
    """The picture files of corpus.py, written once, by name."""
    return {case.name: case for case in corpus.make(tmp_path_factory.mktemp("corpus"))}


@pytest.fixture(scope="session")
def timm():
    """The timm package; it imports torchvision, which has to come first."""
    from pttp.vision import torchvision

    torchvision()
    return pytest.importorskip("timm")
