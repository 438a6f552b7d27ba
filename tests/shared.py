"""Files that stand beside a checkout and are not part of it: the folder PTTP_SHARED, or ../shared."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("PTTP_SHARED") or Path(__file__).resolve().parents[2] / "shared")


def shared(*parts: str) -> Path:
    """The path of a shared file; the test is skipped where there is none."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}: set PTTP_SHARED to the folder that holds {'/'.join(parts)}")
    return path
