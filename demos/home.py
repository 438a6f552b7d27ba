"""The reading list: the six papers in their order, what each is about, and the way to its tab."""
from __future__ import annotations

import html

import gradio as gr

from demos import page
from pttp.papers import Paper, papers


def entry(paper: Paper) -> str:
    return (
        f'<article class="pt-entry" style="--accent:{paper.accent}"><div class="pt-number" aria-hidden="true">{paper.number}</div><div>'
        f'<h2><a href="#{paper.name}">{html.escape(paper.title)}</a></h2>{page.byline(paper)}'
        f"<details><summary>{html.escape(paper.summary)}</summary><p>{html.escape(paper.abstract)}</p></details>"
        f'<div class="pt-foot"><a class="pt-chip pt-open" href="#{paper.name}">Try it: {html.escape(paper.task.lower())}</a>{page.chips(paper)}</div></div></article>'
    )


def build() -> None:
    gr.HTML(
        '<div class="pt-masthead"><h1>PyTorching the Papers</h1><p>Six vision papers to use and to understand. Every tab runs the paper on your '
        "photo, lets you look inside, and explains it beside the code.</p></div>"
    )
    gr.HTML("".join(entry(p) for p in papers()))
    gr.HTML('<p class="pt-colophon">* first author. Summaries are ours. Pictures you upload stay on the machine that serves this page and are deleted within an hour. Every action is also an <a href="?view=api">HTTP endpoint</a>.</p>')
