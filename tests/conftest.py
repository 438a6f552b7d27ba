"""Fixtures that several test files share."""
from __future__ import annotations

import pytest

from tests import corpus


@pytest.fixture(scope="session")
def cases(tmp_path_factory) -> dict[str, corpus.Case]:
    """The picture files of corpus.py, written once, by name."""
    return {case.name: case for case in corpus.make(tmp_path_factory.mktemp("corpus"))}
