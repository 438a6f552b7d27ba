"""What `import pttp` alone promises."""
from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pttp

ROOT = Path(__file__).resolve().parents[1]
ROOMS = [paper.name for paper in pttp.papers()]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_its_predictor_at_hand(room):
    found = getattr(pttp, room)
    assert found.Predictor is import_module(f"pttp.{room}.predict").Predictor and found.Predictor.room == room
    with pytest.raises(AttributeError, match=f"'pttp.{room}' has no attribute 'Painter'"):
        found.Painter


def test_rooms_import_no_torch_until_then():
    code = f"import sys, pttp; [getattr(pttp, room) for room in {ROOMS}]; assert 'torch' not in sys.modules; pttp.ghostnet.Predictor; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_every_error_is_public():
    from pttp import errors
    from pttp.pointrend import predict, session

    assert {name for name, found in vars(errors).items() if isinstance(found, type)} <= set(pttp.__all__)
    assert pttp.NothingFound is session.NothingFound is predict.NothingFound and issubclass(pttp.NothingFound, pttp.PTTPError)
