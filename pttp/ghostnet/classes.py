"""The 1,000 ImageNet classes: WordNet ids in their order, and their English names."""
from functools import cache
from pathlib import Path


@cache
def _rows() -> list[tuple[str, str]]:
    lines = (Path(__file__).with_name("classes.txt")).read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" ", 1)) for line in lines]


def wnids() -> list[str]:
    return [wnid for wnid, _ in _rows()]


def names() -> list[str]:
    return [name for _, name in _rows()]
