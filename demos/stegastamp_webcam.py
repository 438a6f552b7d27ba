"""StegaStamp's webcam: every frame is searched for stamps, the frames of a stamp vote on its bits, and what is found stays."""
from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from demos import page
from demos import stegastamp_cards as cards
from pttp.papers import Paper

EVERY = 0.12  # seconds between frames that the browser sends; a slower machine gets fewer, never a backlog
ALIKE = 12  # frames of which the rate is the mean
MOST = 6  # readings that are kept
IDLE = "Start the camera above and press Record: then hold a stamped photo, on paper or on a phone, in front of it."

# Draws the quads over the video, stops the camera when nobody sees it any more, and says what is wrong when there is none
SCRIPT = """
const cam = () => document.querySelector('#stegastamp-cam');
const hint = element.querySelector('.pt-hint');
const say = words => { hint.textContent = words; hint.hidden = !words; };
const words = {
  NotAllowedError: 'The browser does not let this page use the camera. Allow it (the camera sign beside the address), then press the camera button again. Or take a photo with your phone and give it to the part Read.',
  NotFoundError: 'No camera was found here. Plug one in, open this page on a phone, or take a photo with your phone and give it to the part Read.',
  NotReadableError: 'The camera is in use by another program: close that one, then press the camera button again.',
  insecure: 'Browsers give a camera only to pages that are opened over https or on this very computer. Take a photo with your phone and give it to the part Read.',
};
const media = navigator.mediaDevices, seen = () => element.offsetParent !== null;
let wanted = { video: true };
if (!media?.getUserMedia) say(words.insecure);
else {
  media.enumerateDevices().then(all => { if (!all.some(d => d.kind === 'videoinput')) say(words.NotFoundError); });
  navigator.permissions?.query({ name: 'camera' }).then(p => {
    const tell = () => { if (p.state === 'denied') say(words.NotAllowedError); else if (hint.textContent === words.NotAllowedError) say(''); };
    tell();
    p.onchange = tell;
  }).catch(() => {});
  const ask = media.getUserMedia.bind(media);
  media.getUserMedia = constraints => ask(constraints).then(
    stream => { if (seen()) { wanted = constraints; say(''); } return stream; },
    error => { if (!seen()) throw error; say(words[error.name] || words.NotFoundError); return new Promise(() => {}); });
}
const place = () => {
  const video = cam()?.querySelector('video'), svg = element.querySelector('svg');
  if (!svg) return;
  const on = video && video.videoWidth && video.srcObject?.active;
  svg.style.display = on ? 'block' : 'none';
  if (!on) return;
  const v = video.getBoundingClientRect(), e = element.getBoundingClientRect();
  Object.assign(svg.style, { left: v.left - e.left + 'px', top: v.top - e.top + 'px', width: v.width + 'px', height: v.height + 'px' });
};
watch('value', () => {
  const svg = element.querySelector('svg'), frame = props.value;
  if (!svg) return;
  svg.setAttribute('viewBox', frame ? `0 0 ${frame.width} ${frame.height}` : '0 0 1 1');
  const box = cam()?.querySelector('video')?.getBoundingClientRect(), thin = frame && box ? frame.width / box.width : 1;
  svg.innerHTML = frame ? frame.quads.map(q => `<polygon points="${q.points}" class="under" stroke-width="${6 * thin}"/><polygon points="${q.points}" class="${q.read ? 'read' : 'seen'}" stroke-width="${3 * thin}"/>`).join('') : '';
  place();
});
let away = false;
setInterval(() => {
  const video = cam()?.querySelector('video');
  if (!seen() && !away) {
    away = true;
    cam()?.querySelector('[title="stop recording"], [title="spinner"]')?.closest('button')?.click();
    video?.srcObject?.getTracks().forEach(track => track.stop());
  } else if (seen() && away) {
    away = false;
    if (video?.srcObject) media.getUserMedia(wanted).then(stream => { video.srcObject = stream; video.play(); });
  }
  if (seen()) place();
}, 250);
"""


@dataclass
class Visit:
    """One visitor's video: `watch` follows its stamps, `found` are the readings so far, newest first, `times` when the last frames came."""

    watch: Any
    found: list = field(default_factory=list)
    times: deque = field(default_factory=lambda: deque(maxlen=ALIKE))


def build(paper: Paper, network: Callable[[str], Any], notice: Callable[[Any], str]) -> Callable[[gr.Radio], None]:
    """The part Webcam; call what comes back with the weights chooser to connect it."""

    def frame(image, visit: Visit | None, source: str):
        if image is None:
            return gr.skip(), gr.skip(), gr.skip(), visit
        net, now = network(source), time.monotonic()
        visit = visit or Visit(net.watch())
        tracks = visit.watch.add(net.look(np.asarray(image)), now)
        known = {reading.message for reading in visit.found}
        new = [reading for track in tracks if track.seen == now and track.payload and track.payload.message not in known and (reading := net.tracked(track))]
        visit.found[:0] = new
        del visit.found[MOST:]
        visit.times.append(now)
        spent = time.monotonic() - now
        quads = [{"points": " ".join(f"{x:.0f},{y:.0f}" for x, y in track.quad), "read": track.payload is not None} for track in tracks if track.seen == now]
        overlay = {"width": image.width, "height": image.height, "quads": quads}
        # the readings go out with every frame, because the answer to "clear" may overtake one that goes out once
        return overlay, status(tracks, now, visit.times, spent, paper.accent), notice(net) + results(visit.found), visit

    def results(found: list) -> str:
        return "".join(cards.reading_card(reading, paper.accent) for reading in found)

    def clear(visit: Visit | None):
        """Forget in place: a frame that is just being looked at would bring another object's memory back."""
        if visit:
            visit.found.clear()
            visit.watch.tracks.clear()
        return None, idle(paper.accent), ""

    with gr.Row(equal_height=False):
        with gr.Column():
            cam = page.Picture(
                sources=["webcam"], streaming=True, type="pil", image_mode="RGB", label="Camera", height=420, elem_id="stegastamp-cam",
                webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}, "facingMode": {"ideal": "environment"}}}),
            )
            overlay = gr.HTML(None, html_template='<svg preserveAspectRatio="xMidYMid meet" aria-hidden="true"></svg><p class="pt-error pt-hint" role="alert" hidden></p>', js_on_load=SCRIPT, elem_id="stegastamp-overlay", elem_classes="pt-overlay")
        with gr.Column():
            live = gr.HTML(idle(paper.accent), elem_id="stegastamp-live")
            result = gr.HTML(elem_id="stegastamp-result")
            again = gr.Button("Clear and look again", elem_id="stegastamp-again", size="sm")
    visit = gr.State(time_to_live=3600)

    def connect(source: gr.Radio) -> None:
        cam.stream(
            page.in_words(frame), [cam, visit, source], [overlay, live, result, visit],
            stream_every=EVERY, time_limit=20, concurrency_limit=4, concurrency_id="stegastamp-webcam", show_progress="hidden", api_visibility="private",
        )
        again.click(page.in_words(clear), visit, [overlay, live, result], api_visibility="private", show_progress="hidden")

    return connect


def idle(accent: str) -> str:
    return bar(IDLE, 0, "", accent)


def status(tracks: list, now: float, times: deque, spent: float, accent: str) -> str:
    """What is in view, how decided its bits are, and how quick this is."""
    rate = f"{(len(times) - 1) / (times[-1] - times[0]):.1f} frames a second, " if len(times) > 1 else ""
    speed = f"{rate}{1e3 * spent:.0f} ms a frame"
    if not tracks:
        return bar("No stamped picture in view yet: hold it nearer, flat and evenly lit.", 0, speed, accent)
    in_view = [track for track in tracks if track.seen == now] or tracks
    best = in_view[0]
    if best.payload:
        return bar("Read." if len(in_view) == 1 else f"Read. {len(in_view)} pictures are in view.", 1, speed, accent)
    return bar(f"A picture is in view: its bits are {best.confidence:.0%} decided after {best.frames} frame{'s' * (best.frames > 1)}.", best.confidence, speed, accent)


def bar(words: str, share: float, note: str, accent: str) -> str:
    return (
        f'<div class="pt-card" style="--accent:{accent}" data-confidence="{share:.2f}"><p class="pt-live">{words}</p><div class="pt-track" role="progressbar" aria-label="How decided the bits are" aria-valuenow="{share:.2f}" aria-valuemin="0" aria-valuemax="1">'
        f'<div class="pt-fill" style="width:{100 * share:.0f}%"></div></div><p class="pt-note">{note or "&nbsp;"}</p></div>'
    )
