"""NOTES.md for the page: links to code become the code itself, folded, read from the source as it is today."""
from __future__ import annotations

import ast
import re
from pathlib import Path

FILE_LINK = re.compile(r"\[(?P<words>[^\]]+)\]\([\w./]+\.(?:py|md|json)\)")
CODE_LINK = re.compile(r"\[`(?P<symbol>[\w.]+)`\]\((?P<file>[\w./]+\.py)#L(?P<first>\d+)-L(?P<last>\d+)\)")


def lines_of(file: Path, symbol: str) -> tuple[int, int]:
    """First and last line (1-based) of a function, class, method or module-level name in `file`; KeyError when it is not there."""
    body, node = ast.parse(file.read_text(encoding="utf-8")).body, None
    for part in symbol.split("."):
        node = next((n for n in body if part in _names(n)), None)
        if node is None:
            raise KeyError(f"{symbol} is not in {file.name}")
        body = getattr(node, "body", [])
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return first, node.end_lineno


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {t.id for t in node.targets if isinstance(t, ast.Name)}
    return set()


def render(notes: Path) -> str:
    """Markdown with every paragraph's code links unfolded below the paragraph; relative links to the room's files lose their target."""
    blocks = []
    for block in notes.read_text(encoding="utf-8").split("\n\n"):
        blocks.append(FILE_LINK.sub(r"\g<words>", CODE_LINK.sub(r"`\g<symbol>`", block)))
        if block.lstrip().startswith(("|", "```")):
            continue
        for match in CODE_LINK.finditer(block):
            file = notes.parent / match["file"]
            first, last = lines_of(file, match["symbol"])
            code = "\n".join(file.read_text(encoding="utf-8").splitlines()[first - 1 : last])
            blocks.append(f'<details class="pt-lines"><summary>{match["file"]}, lines {first} to {last}: {match["symbol"]}</summary>\n\n```python\n{code}\n```\n\n</details>')
    return "\n\n".join(blocks)


def refresh(notes: Path) -> None:
    """Write today's line numbers into the code links of a NOTES.md: `python -c "from demos.notes import *; refresh(Path('pttp/ghostnet/NOTES.md'))"`."""

    def today(match: re.Match) -> str:
        first, last = lines_of(notes.parent / match["file"], match["symbol"])
        return f"[`{match['symbol']}`]({match['file']}#L{first}-L{last})"

    notes.write_text(CODE_LINK.sub(today, notes.read_text(encoding="utf-8")), encoding="utf-8")

