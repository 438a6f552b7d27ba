"""Figures as HTML and inline pictures, so that they follow the page's light and dark theme and stay sharp."""
from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

# viridis at nine even steps: ordered in lightness, readable without colour vision
VIRIDIS = np.array([(68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121), (110, 206, 88), (253, 231, 37)], np.float32)
DIVERGING = np.array([(33, 102, 172), (146, 197, 222), (247, 247, 247), (253, 184, 99), (179, 88, 6)], np.float32)  # blue - white - orange


def coloured(values: np.ndarray, low: float, high: float, anchors: np.ndarray = VIRIDIS) -> np.ndarray:
    """(H, W) numbers -> (H, W, 3) uint8, `low` .. `high` spread over the anchors."""
    t = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(anchors) - 1)
    i = np.minimum(t.astype(int), len(anchors) - 2)
    f = (t - i)[..., None]
    return np.round(anchors[i] * (1 - f) + anchors[i + 1] * f).astype(np.uint8)


def data_uri(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 -> a PNG that an <img> can hold."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(values: np.ndarray, alt: str, anchors: np.ndarray = VIRIDIS, around_zero: bool = False) -> str:
    values = np.asarray(values, np.float32)
    low, high = (-abs(values).max(), abs(values).max()) if around_zero else (values.min(), values.max())
    return f'<img alt="{alt}" src="{data_uri(coloured(values, low, high, anchors))}">'


def ghost_pairs(pairs, accent: str, shown: int = 12) -> str:
    """Intrinsic map, the filter, the ghost, and their correlation: the strongest `shown` / 2 and the weakest `shown` / 2."""
    r = np.asarray(pairs.correlation, np.float32)
    intrinsic, ghost, kernels = (np.asarray(a) for a in (pairs.intrinsic, pairs.ghost, pairs.kernels))
    s1 = len(ghost) // len(intrinsic)
    alive = [i for i in np.argsort(-np.abs(r)) if np.ptp(ghost[i]) > 0 and np.ptp(intrinsic[i // s1]) > 0]
    order = alive if len(alive) <= shown else alive[: shown // 2] + alive[-(shown // 2) :]
    cells = "".join(
        f'<figure class="pt-pair">{picture(intrinsic[i // s1], f"intrinsic map {i // s1}")}{picture(kernels[i], "its filter", DIVERGING, True)}{picture(ghost[i], f"ghost map {i}")}'
        f"<figcaption>map {i // s1}, r = {r[i]:+.2f}</figcaption></figure>"
        for i in order
    )
    h, w = intrinsic.shape[1:]
    dead = len(ghost) - len(alive)
    median = float(np.median(np.abs(r[alive]))) if alive else 0.0
    note = f"{len(intrinsic)} intrinsic and {len(ghost)} ghost maps of {w} x {h}; median |r| {median:.2f}" + (f"; {dead} pairs are flat on this photo and left out" if dead else "")
    note += f". Shown: the {len(order)} most and least alike." if len(order) < len(alive) else "."
    return f'<div class="pt-card" style="--accent:{accent}"><div class="pt-pairs">{cells}</div><p class="pt-note">{note} Maps: dark is low, yellow is high. Filters: orange adds, blue subtracts.</p></div>'


def bar(value: float, largest: float, kind: str) -> str:
    return f'<span class="pt-spark {kind}" style="width:{100 * value / max(largest, 1e-12):.1f}%"></span>'


def block_table(rows) -> str:
    """One row a part of the network; the bars compare multiply-accumulates (orange) with milliseconds (blue)."""
    most_macs, most_ms = max(r.macs for r in rows), max(r.milliseconds for r in rows)
    all_macs, all_ms = sum(r.macs for r in rows), sum(r.milliseconds for r in rows)
    body = "".join(
        f"<tr><td>{r.name}</td><td>{r.what}</td><td class='n'>{' x '.join(map(str, r.shape))}</td><td class='n'>{r.parameters:,}</td>"
        f"<td class='n'>{r.macs / 1e6:.2f}</td><td style='width:12%'>{bar(r.macs, most_macs, 'macs')}</td><td class='n'>{r.milliseconds:.2f}</td><td style='width:12%'>{bar(r.milliseconds, most_ms, 'ms')}</td></tr>"
        for r in rows
    )
    head = "<tr><th>part</th><th>what it is</th><th class='n'>out: C x H x W</th><th class='n'>parameters</th><th class='n'>M MACs</th><th></th><th class='n'>ms</th><th></th></tr>"
    total = f"<tr><td><b>all</b></td><td></td><td></td><td class='n'>{sum(r.parameters for r in rows):,}</td><td class='n'>{all_macs / 1e6:.2f}</td><td></td><td class='n'>{all_ms:.2f}</td><td></td></tr>"
    return f'<div class="pt-card pt-scroll"><table class="pt-table"><thead>{head}</thead><tbody>{body}</tbody><tfoot>{total}</tfoot></table></div>'


def twin_bars(name: str, lines: list[tuple[float, float, str, str]]) -> str:
    """A name and its bars: (value, largest, kind, label) each."""
    drawn = "".join(f'<div class="pt-line">{bar(value, largest, kind)}<span>{label}</span></div>' for value, largest, kind, label in lines)
    return f"<div>{name}</div><div>{drawn}</div>"


def bench(result) -> str:
    """Multiply-accumulates and milliseconds side by side, one pair of bars a network."""
    most_macs, most_ms = max(r.macs for r in result.rows), max(r.milliseconds for r in result.rows)
    rows = "".join(
        twin_bars(r.name, [(r.macs, most_macs, "macs", f"{r.macs / 1e6:.0f} M MACs"), (r.milliseconds, most_ms, "ms", f"{r.milliseconds:.1f} ms")]) for r in result.rows
    )
    note = f"Medians of {result.rounds} rounds in turns, batch 1, {result.size} x {result.size}, {result.threads} threads, plain PyTorch with random weights (cost and time do not depend on them). Orange: work on paper. Blue: time."
    return f'<div class="pt-card"><div class="pt-twin">{rows}</div><p class="pt-note">{note}</p></div>'


def ratio(costs: dict, chosen: int) -> str:
    """Parameters and multiply-accumulates of the whole network by s, the chosen one in words."""
    base, now = costs[2], costs[chosen]
    most_macs, most_parameters = max(c.macs for c in costs.values()), max(c.parameters for c in costs.values())
    rows = "".join(
        twin_bars(
            f"<b>s = {s}</b>" if s == chosen else f"s = {s}",
            [(c.macs, most_macs, "macs", f"{c.macs / 1e6:.1f} M MACs"), (c.parameters, most_parameters, "ms", f"{c.parameters / 1e6:.2f} M")],
        )
        for s, c in costs.items()
    )
    words = f"s = {chosen}: {now.macs / 1e6:.1f} M multiply-accumulates and {now.parameters / 1e6:.2f} M parameters"
    words += "." if chosen == 2 else f", {1 - now.macs / base.macs:.0%} and {1 - now.parameters / base.parameters:.0%} less than with the paper's s = 2."
    return f'<div class="pt-card"><div class="pt-twin">{rows}</div><p class="pt-note">{words} Orange: multiply-accumulates. Blue: parameters.</p></div>'
