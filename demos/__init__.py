"""The web page: the reading list, then one tab a paper."""
from __future__ import annotations

from importlib import import_module

import gradio as gr

from demos import home
from pttp.papers import papers

NAMES = ("home", *(p.name for p in papers()))


def opened(name: str) -> gr.Tabs:
    """The tab that the address names after its #; the reading list for anything else."""
    return gr.Tabs(selected=name if name in NAMES else "home")


def build() -> gr.Blocks:
    """The tabs in order, nothing else."""
    with gr.Blocks(title="PTTP: PyTorching the Papers", analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        with gr.Tabs(selected="home", elem_id="tabs") as tabs:
            with gr.Tab("Reading list", id="home") as tab:
                home.build()
            tab.select(None, None, None, js="() => history.replaceState(null, '', '#home')")
            for paper in papers():
                with gr.Tab(paper.short, id=paper.name) as tab:
                    import_module(f"demos.{paper.name}").build(paper, tab)
                tab.select(None, None, None, js=f"() => history.replaceState(null, '', '#{paper.name}')")
        address = gr.Textbox(visible=False)
        jump = gr.Button(elem_id="jump", elem_classes="pt-hidden")
        jump.click(opened, address, tabs, js="() => window.pttpAddress", api_visibility="private", show_progress="hidden")
        # Only an address that names a tab asks the server: an answer that comes after the visitor's first click must not undo it
        demo.load(None, None, None, js="() => { if (window.pttpAddress && window.pttpAddress !== 'home') document.querySelector('#jump').click(); }")
    return demo
