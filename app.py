"""Starts the page: `python app.py [--port 7860] [--host 127.0.0.1]`. Also the entry of a Hugging Face Space."""
from __future__ import annotations

import argparse
import os
import warnings

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the server calls no host but the Hub, and that only for weights
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait make a busy 2-core machine ten times slower

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.staticfiles import StaticFiles  # noqa: E402

from demos import build, guard  # noqa: E402
from demos.page import ASSETS  # noqa: E402

# A link to #paper opens its tab, also when it is followed inside the page; the first one is kept before the tabs write their own
HEAD = """<script>window.pttpAddress = location.hash.slice(1);
const openTab = hash => { window.pttpAddress = hash.slice(1); document.querySelector("#jump")?.click(); };
addEventListener("hashchange", () => openTab(location.hash));
addEventListener("click", event => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link) return;
  event.preventDefault(); // the address may already be this one, and would then not change
  history.pushState(null, "", link.hash);
  openTab(link.hash);
});
// The examples are buttons that show a picture and nothing else: who hears the page is told the picture's name
new MutationObserver(() => document.querySelectorAll(".gallery-item img:not([alt]), .gallery-item img[alt='']").forEach(image => {
  image.alt = "Example: " + decodeURIComponent(image.src).split("/").pop().replace(/\\.\\w+$/, "");
})).observe(document.documentElement, {childList: true, subtree: true});</script>"""


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue="stone", secondary_hue="stone", neutral_hue="stone", font=["Inter", "system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"]
    ).set(body_background_fill="#faf9f7", body_background_fill_dark="#171614", block_background_fill_dark="#1f1d1b", button_primary_background_fill="#292524", button_primary_text_color="#ffffff", button_primary_background_fill_hover="#44403c")


def create() -> FastAPI:
    """The whole application: the page at /, /healthz for whoever watches it, the bundled fonts at /pttp."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    app.mount("/pttp", StaticFiles(directory=ASSETS))
    demo = build()
    demo.queue(default_concurrency_limit=2, max_size=64)
    app = gr.mount_gradio_app(
        app, demo, path="/", theme=theme(), css_paths=ASSETS / "style.css", head=HEAD, ssr_mode=False, max_file_size="64mb", run_history=False, show_error=True,
        mcp_server=True if os.environ.get("PTTP_MCP") == "1" else None,
    )
    demo.has_launched = True  # without it a mounted page would read any picture on the server that a client names
    demo._format_processing_error = guard.misfit
    demo.validate_inputs = guard.completed(demo.validate_inputs)
    guard.no_addresses()
    inside = app.routes[-1].app
    inside.state_holder = guard.Sessions()
    inside.state_holder.set_blocks(demo)
    app.add_middleware(guard.Guard, sessions=inside.state_holder)
    return app


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or os.environ.get("GRADIO_SERVER_PORT") or 7860))
    parser.add_argument("--host", default="0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1")
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # a visitor's odd picture gets a sentence in the page, not a line in the log
    app = create()
    print(f"PTTP is at http://{args.host if args.host != '0.0.0.0' else '127.0.0.1'}:{args.port}/", flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", proxy_headers=True, timeout_graceful_shutdown=5)  # an open page holds a connection that never ends


if __name__ == "__main__":
    main()
