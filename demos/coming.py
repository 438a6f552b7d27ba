"""The tab of a paper that does not run yet: its card, and the word."""
from __future__ import annotations

import html

import gradio as gr

from demos import page
from pttp.papers import Paper


def build(paper: Paper, tab: gr.Tab) -> None:
    page.header(paper)
    gr.HTML(f'<div class="pt-card" style="--accent:{paper.accent}"><span class="pt-chip pt-soon">coming</span><p style="margin:12px 0 0;line-height:1.6">{html.escape(paper.abstract)}</p></div>')
