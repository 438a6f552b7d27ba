"""How well stamps hide and how well they are read, on photos that training never saw: `python -m pttp.stegastamp.evaluate`.

Photos are stamped at strength 1 through `Predictor.encode`, at their own size and aspect, as a visitor's are. "Read" means that the code verifies and gives
back what was sent, from one look at the upright picture: no search, no corner moves, no second chance. Only the camera path uses everything that the page
uses: detector, corner moves, and votes over the frames of a second.

`export` does all this with a freshly trained network and writes what a room ships.
"""
from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pttp.errors import NoStampFound
from pttp.stegastamp import detect, geometry, links, message, reading, scenes, study, tune
from pttp.stegastamp.model import StegaStamp
from pttp.stegastamp.predict import Predictor, Stamp
from pttp.training.export import LICENCE, fill, parameters, write
from pttp.training.photos import canvases, data_root, held_out

Say = Callable[[str], None]
FRAMES = 6  # a second of video as a visitor's browser sends it
STRENGTHS = (0.5, 1.0, 1.5)
QUICK = {"photos": 24, "clips": 6, "crops": 400, "searched": 3}
FULL = {"photos": 240, "clips": 60, "crops": 5_200, "searched": 6}


def unseen(root: Path, count: int) -> list[Image.Image]:
    """`count` photos that training leaves out, spread over all of them, as RGB."""
    paths = sorted(p for p in held_out(root) if p.exists())
    if not paths:
        raise SystemExit(f"no photos kept aside in {root}: the folders with a val.txt or a test split are missing")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int))
    return [Image.open(paths[i]).convert("RGB") for i in chosen]


def codes(count: int, rng: np.random.Generator) -> list[str]:
    """Random messages as links get them."""
    return ["".join(rng.choice(list(links.ALPHABET), message.BYTES)) for _ in range(count)]


def square(picture: Image.Image, size: int) -> Tensor:
    """The whole picture as the decoder sees it, (1, 3, size, size)."""
    return reading.squares(reading.tensor(picture, "cpu"), reading.whole(*picture.size)[None], size)


def eight_bits(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 1) * 255) / 255


def filtered(picture: Image.Image, size: int, sigma: float = 0.0, deviation: float = 0.0, rng: np.random.Generator | None = None) -> Tensor:
    """At the network's size: a Gaussian blur, then normal noise, then 8 bits."""
    x = square(picture, size).numpy()
    if sigma:
        x = gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest")
    if deviation:
        x = x + deviation * rng.standard_normal(x.shape)
    return torch.from_numpy(eight_bits(x).astype(np.float32))


def tilted(picture: Image.Image, behind: Image.Image, size: int, rng: np.random.Generator, degrees: float = 10, percent: float = 20) -> Tensor:
    """Turned by `degrees` to either side, every corner moved inward by up to `percent` of the side both ways, laid on another photo, and cut out at its true corners."""
    corners, canvas = study.ATTACKS["rotation"].place(picture.size, degrees * rng.choice([-1, 1]))
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * rng.uniform(0, percent / 100, (4, 2))
    moved = geometry.transform_points(geometry.homography(geometry.square(1), corners), geometry.square(1) + inward)
    seen = study.onto(picture, moved, canvas, behind.resize(canvas))
    own = geometry.transform_points(geometry.homography(study.outline(picture.size), moved), reading.whole(*picture.size) + 0.5) - 0.5
    return reading.squares(reading.tensor(seen, "cpu"), own[None], size)


Spoil = Callable[[Image.Image, Image.Image, int, np.random.Generator], Tensor]  # stamped picture, another one, the network's size
CONDITIONS: dict[str, tuple[str, Spoil]] = {
    "clean": ("as saved (PNG)", lambda p, other, size, rng: square(p, size)),
    **{f"jpeg{q}": (f"JPEG {q}", lambda p, other, size, rng, q=q: square(study.jpeg(p, q), size)) for q in (90, 70, 50, 40)},
    "resize200": ("longer side 200 px", lambda p, other, size, rng: square(study.resize(p, 200), size)),
    "blur2": ("blur, sigma 2 *", lambda p, other, size, rng: filtered(p, size, sigma=2)),
    "noise005": ("noise 0.05 *", lambda p, other, size, rng: filtered(p, size, deviation=0.05, rng=rng)),
    "blur_noise": ("blur, sigma 2, and noise 0.05 *", lambda p, other, size, rng: filtered(p, size, 2, 0.05, rng)),
    "median5": ("median filter 5 x 5 *", lambda p, other, size, rng: square(p.resize((size, size), Image.Resampling.BICUBIC).filter(ImageFilter.MedianFilter(5)), size)),
    "tilt": ("rotation 10 degrees, perspective 20 %, corners known", lambda p, other, size, rng: tilted(p, other, size, rng)),
}
BY_STRENGTH = ("clean", "jpeg50", "resize200", "blur_noise")


def similarity(a: Image.Image, b: Image.Image) -> float:
    """SSIM with the Gaussian window of its paper, over the three channels."""
    from skimage.metrics import structural_similarity

    options = dict(channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    return float(structural_similarity(np.asarray(a), np.asarray(b), **options))


def stamped(predictor: Predictor, photos: list[Image.Image], texts: list[str], strength: float = 1.0, steps: int = tune.STEPS) -> list[Stamp]:
    return [predictor.encode(photo, text, strength, steps) for photo, text in zip(photos, texts, strict=True)]


def hiding(photos: list[Image.Image], stamps: list[Stamp]) -> dict:
    """PSNR and SSIM at the photos' own size; `psnr_low`: one photo in twenty is below."""
    psnr = np.array([stamp.psnr for stamp in stamps])
    ssim = [similarity(photo, stamp.image) for photo, stamp in zip(photos, stamps, strict=True)]
    return {"psnr": round(float(psnr.mean()), 2), "psnr_low": round(float(np.quantile(psnr, 0.05)), 2), "ssim": round(float(np.mean(ssim)), 4)}


def reading_rates(predictor: Predictor, photos: list[Image.Image], stamps: list[Stamp], names: tuple[str, ...]) -> dict:
    """For each of `names` (of CONDITIONS) the share of right bits and of messages read; and the mean PSNR."""
    rng, size = np.random.default_rng(1), predictor.form.size
    right, read = {n: [] for n in names}, {n: [] for n in names}
    for i, (photo, stamp) in enumerate(zip(photos, stamps, strict=True)):
        views = torch.cat([CONDITIONS[n][1](stamp.image, photos[i - 1], size, rng) for n in names])
        for name, logits in zip(names, reading.decode(predictor.form, views.to(predictor.device)), strict=True):
            seen = study.report(logits, stamp.bits, reading.whole(*photo.size))
            right[name].append(seen.bit_accuracy)
            read[name].append(seen.readable)
    rates = {n: {"bits": round(float(np.mean(right[n])), 4), "read": round(float(np.mean(read[n])), 4)} for n in names}
    return {"psnr": round(float(np.mean([stamp.psnr for stamp in stamps])), 2), **rates}


def clips(stamps: list[Stamp], backgrounds, seed: int) -> Iterator[tuple[list[np.ndarray], np.ndarray, Stamp]]:
    """Frames and true quads of each stamp in front of a camera."""
    g = torch.Generator().manual_seed(seed)
    for stamp in stamps:
        yield *scenes.film(reading.tensor(stamp.image, "cpu"), backgrounds, g, FRAMES), stamp


def camera(predictor: Predictor, stamps: list[Stamp], root: Path) -> dict:
    """A second of 1280 x 720 video of each stamp (`scenes.film`), read as the page reads the webcam."""
    backgrounds = canvases([p for p in sorted(held_out(root)) if p.exists()][::5], 448)
    frames, found, first, wrong, right, known = 0, 0, [], 0, [], []
    for video, quads, stamp in clips(stamps, backgrounds, seed=2):
        watch, when, text = predictor.watch(), None, stamp.message
        for i, (frame, quad) in enumerate(zip(video, quads, strict=True)):
            looks = predictor.look(frame)
            tracks = watch.add(looks, i / FRAMES)
            said = {track.payload.message for track in tracks if track.payload}
            wrong += bool(said - {text})
            when = i if when is None and text in said else when
            frames += 1
            found += any(detect.quad_iou(quad, look.quad) > 0.7 for look in looks)
            seen = study.report(reading.decode(predictor.form, reading.squares(reading.tensor(frame, predictor.device), quad[None], predictor.form.size))[0], stamp.bits, quad)
            right.append(seen.bit_accuracy)
            known.append(seen.readable)
        first.append(when)
    read = [i for i in first if i is not None]
    return {
        "clips": len(first),
        "frames": frames,
        "read": round(len(read) / len(first), 4),
        "read_in_first_frame": round(sum(i == 0 for i in read) / len(first), 4),
        "found": round(found / frames, 4),
        "frames_with_wrong_message": wrong,
        "corners_known": {"bits": round(float(np.mean(right)), 4), "read": round(float(np.mean(known)), 4)},
    }


def crops(photos: list[Image.Image], count: int, rng: np.random.Generator) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Photos without a stamp, each with its share of `count` random crops as quads (n, 4, 2)."""
    for photo, n in zip(photos, np.bincount(np.arange(count) % len(photos), minlength=len(photos)), strict=True):
        side = np.sqrt(rng.uniform(0.1, 1, (n, 1))) * np.exp(rng.uniform(-0.14, 0.14, (n, 2)))
        side = np.minimum(side, 1) * (np.array(photo.size) - 1)
        start = rng.uniform(0, 1, (n, 2)) * (np.array(photo.size) - 1 - side)
        yield photo, start[:, None] + geometry.square(1) * side[:, None]


def false_positives(predictor: Predictor, photos: list[Image.Image], count: int, searched: int, net=None, batch: int = 16) -> dict:
    """Messages read where none was written: `count` unstamped crops in all four rotations, and `Predictor.decode`, which searches, on some of the photos.

    `net`: what decodes the crops, the predictor's network or its inference form.
    """
    net = net or predictor.form
    looks = lenient = strict = near = 0
    for photo, quads in crops(photos, count, np.random.default_rng(3)):
        pixels = reading.tensor(photo, predictor.device)
        for some in np.array_split(quads, max(1, -(-len(quads) // batch))):
            if not len(some):
                continue
            logits = reading.decode(net, reading.four_turns(reading.squares(pixels, some, net.size)))
            payloads = message.unpack_all(reading.probabilities(logits))
            near += int((message.correct(logits[:, : message.CODE] > 0)[1] >= 0).sum())
            looks += len(payloads)
            lenient += sum(p is not None for p in payloads)
            strict += sum(reading.strict(p) is not None for p in payloads)
    chosen = photos[:: max(1, len(photos) // max(1, searched))][:searched]
    return {
        "crops": count,
        "looks": looks,
        "near_a_code_word": near,
        "lenient": lenient,
        "strict": strict,
        "bound_lenient_four_rotations": message.false_positive_rate(4),
        "bound_strict_one_look": message.false_positive_rate(1, 0, reading.STRICT_REPAIRS),
        "searched": len(chosen),
        "found_by_search": sum(reads_something(predictor, photo) for photo in chosen),
    }


def reads_something(predictor: Predictor, photo: Image.Image) -> bool:
    try:
        predictor.decode(photo)
    except NoStampFound:
        return False
    return True


def evaluate(predictor: Predictor, root: Path, quick: bool = False, say: Say = print) -> dict:
    """Every number of the room; `quick` measures little of everything, to see that it runs."""
    plan = QUICK if quick else FULL
    photos = unseen(root, plan["photos"])
    texts = codes(len(photos), np.random.default_rng(0))
    fewer = slice(None, None, 3)
    size = predictor.form.size
    stamps = stamped(predictor, photos, texts)
    squares = [ImageOps.fit(photo, (size, size), Image.Resampling.LANCZOS) for photo in photos[fewer]]
    out: dict = {"photos": len(photos), "size": size, "hiding": {"native": hiding(photos, stamps), "network": hiding(squares, stamped(predictor, squares, texts[fewer]))}}
    say(f"hiding: {out['hiding']}")
    rates = reading_rates(predictor, photos, stamps, tuple(CONDITIONS))
    out["conditions"] = {n: rates[n] for n in CONDITIONS}
    out["one_pass"] = reading_rates(predictor, photos, stamped(predictor, photos, texts, steps=0), tuple(CONDITIONS))
    say(f"the encoder's own residual: {out['one_pass']}")
    say("\n".join(f"{CONDITIONS[n][0]}: bits {v['bits']:.4f}, read {v['read']:.4f}" for n, v in out["conditions"].items()))
    out["strengths"] = {
        f"{s:g}": reading_rates(predictor, photos[fewer], stamps[fewer] if s == 1 else stamped(predictor, photos[fewer], texts[fewer], s), BY_STRENGTH) for s in STRENGTHS
    }
    out["strengths"]["photos"] = len(photos[fewer])
    say(f"strengths: {out['strengths']}")
    out["false_positives"] = false_positives(predictor, photos, plan["crops"], plan["searched"], predictor.form)
    say(f"false positives: {out['false_positives']}")
    out["camera"] = None
    if predictor.form.detector is not None:
        n = slice(0, None, max(1, len(photos) // plan["clips"]))
        out["camera"] = camera(predictor, stamps[n], root)
        say(f"camera: {out['camera']}")
    return {"headline": headline(out), **out}


def headline(m: dict) -> str:
    words = [f"PSNR {m['hiding']['native']['psnr']:.1f} dB", *(f"{label} {m['conditions'][n]['read']:.0%}" for label, n in (("read back clean", "clean"), ("as JPEG 50", "jpeg50")))]
    if m["camera"]:
        words.append(f"by a camera within a second {m['camera']['read']:.0%} of {m['camera']['clips']} clips")
    return ", ".join(words) + f"; {m['photos']} photos that training never saw"


def table(metrics: dict) -> str:
    """The measured numbers as Markdown, for the card and for NOTES.md."""
    m = metrics["metrics"]
    native, network, c, once, fp = m["hiding"]["native"], m["hiding"]["network"], m["conditions"], m["one_pass"], m["false_positives"]
    lines = [
        f"Measured on {m['photos']} photos that training never saw, stamped at strength 1 with random links' codes. PSNR {native['psnr']:.1f} dB and SSIM {native['ssim']:.3f} at the photos' own size (one in twenty "
        f"below {native['psnr_low']:.1f} dB), {network['psnr']:.1f} dB and {network['ssim']:.3f} at the network's {m['size']} pixels. \"Read\": the code verifies and gives back what was sent, from one look. "
        f"\"One pass\": with the encoder's residual as it is (`steps=0`, {once['psnr']:.1f} dB), not fitted to the picture.",
        "",
        "| what happened to the picture | right bits | messages read | one pass: right bits | read |",
        "|---|---|---|---|---|",
        *(f"| {label} | {c[n]['bits']:.2%} | {c[n]['read']:.1%} | {once[n]['bits']:.2%} | {once[n]['read']:.1%} |" for n, (label, _) in CONDITIONS.items()),
        "",
        f"(* at the network's {m['size']} pixels; the others at the photo's own size.)",
    ]
    if m["camera"]:
        k = m["camera"]
        lines += [
            "",
            f"**Camera path**, {k['clips']} clips of one second ({FRAMES} frames of 1280 x 720, JPEG 92): the photo fills 30 to 90 % of the frame, tilted by up to 45 degrees, in random light, with shadows, reflections and fingers. "
            f"Read within the second: **{k['read']:.1%}**; from the first frame alone {k['read_in_first_frame']:.1%}. The detector found the photo in {k['found']:.1%} of the frames; with the corners known, a single frame has "
            f"{k['corners_known']['bits']:.2%} right bits and is read in {k['corners_known']['read']:.1%} of the cases. Frames with a wrong message: {k['frames_with_wrong_message']} of {k['frames']}.",
        ]
    labels = {n: CONDITIONS[n][0] for n in BY_STRENGTH}
    lines += ["", f"| strength ({m['strengths']['photos']} photos) | PSNR | " + " | ".join(f"read, {label}" for label in labels.values()) + " |", "|---|---|" + "---|" * len(labels)]
    lines += [f"| {s:g} | {v['psnr']:.1f} dB | " + " | ".join(f"{v[n]['read']:.1%}" for n in labels) + " |" for s in STRENGTHS for v in [m["strengths"][f"{s:g}"]]]
    lines += [
        "",
        f"**False positives.** {fp['crops']:,} unstamped crops in four rotations are {fp['looks']:,} looks: {fp['near_a_code_word']} came within five bits of a code word, {fp['lenient']} passed the rule for a first look "
        f"(by construction at most {fp['bound_lenient_four_rotations']:.1e} for the four rotations, if bits were fair coins), {fp['strict']} the strict one ({fp['bound_strict_one_look']:.1e} a look). "
        f"A full search, hundreds of strict looks, read something in {fp['found_by_search']} of {fp['searched']} unstamped photos.",
        "",
        *published(m),
    ]
    return "\n".join(lines)


def published(m: dict) -> list[str]:
    """Ours beside what others published."""
    c = m["conditions"]

    def bits(name: str) -> str:
        return f"{c[name]['bits']:.3f}"

    return [
        "Beside published figures (bit accuracy). **They were measured on other photos, with settings that are not all known, and those marked † are second-hand: the columns cannot be compared to the digit.**",
        "",
        "| | PSNR | JPEG | resize | noise | median filter | print, screen and camera |",
        "|---|---|---|---|---|---|---|",
        f"| ours ({m['size']} px, 100 bits) | {m['hiding']['native']['psnr']:.1f} dB | {bits('jpeg50')} (quality 50) | {bits('resize200')} (to 200 px) | {bits('noise005')} (0.05) | {bits('median5')} (5 x 5) | "
        + (f"{m['camera']['corners_known']['bits']:.3f} (imitated, single frames, corners known) |" if m["camera"] else "not measured |"),
        "| StegaStamp, the authors' weights † | 27 to 28 dB | .973 | .812 | .961 | .879 | .987 (mean over real pairs) |",
        "| TrustMark † | 40.8 dB | .993 | 1.0 | .986 | .984 | not made for it |",
        "| TrustMark, its authors | 43 to 45 dB | | | over .96 (severe) | | |",
    ]


def card(metrics: dict, count: int) -> str:
    m = metrics["metrics"]
    return f"""---
license: other
license_name: non-commercial-research
library_name: pttp
tags: [stegastamp, steganography, watermarking, pytorch]
---
# StegaStamp, {m["size"]} pixels, 100 bits, embedded in PTTP

Encoder and decoder of StegaStamp (Tancik, Mildenhall and Ng, CVPR 2020, https://arxiv.org/abs/1904.05343){" and a detector that finds stamped pictures in a frame" if m["camera"] else ""}: {count:,} parameters, float16. The authors'
weights are no longer online; these were trained anew. Differences from the paper are listed in NOTES.md.

**Use.** `s = pttp.load("stegastamp"); s.encode("photo.jpg", "https://example.org").image.save("stamped.png"); s.decode("stamped.png").link`. A stamp says which of the links in *your* registry is meant, or seven bytes of text.

**Training.** {metrics["trained_on"]}. Command: `{metrics["training"]["command"]}`; steps: {", ".join(f"{k} {v:,}" for k, v in metrics["training"]["steps"].items())}.

**Data and licences.** BSDS500 (research), COCO 2017 photos (Flickr, various Creative Commons, many non-commercial), one photo a class of ImageNet (non-commercial research), the CC0
clothing set, ECSSD (research), Oxford-IIIT Pets (CC BY-SA 4.0), Weizmann horses (research), Caltech-101 animals (CC BY 4.0), street cats (public domain as published), Penn-Fudan (research),
UTKFace and CelebAMask-HQ faces (non-commercial research; faces of real people). The perceptual loss and the detector's trunk start from EfficientNet-Lite0 (Apache-2.0). Because of the photos,
take these weights as {metrics["licence"]}.

**Limits.** Whoever looks for a stamp can see it, most of all in skies and walls. It is no proof of origin: anybody can write one, copy one, or wash one out. It was never tried with real
printers and cameras; those in the measurements are imitated.

## Measured

{table(metrics)}
"""


def shipped(net: StegaStamp, folder: Path) -> Predictor:
    """A predictor with `net` as it will be shipped, rounded to float16, from files in `folder`."""
    write(folder, net, net.config, {"licence": LICENCE, "trained_on": "not said yet", "metrics": {"headline": "not measured yet"}}, "")
    return Predictor.from_pretrained(folder)


def export(net: StegaStamp, folder: Path, root: Path, trained_on: str, training: dict, quick: bool = False, notes: Path | None = None, say: Say = print) -> dict:
    """Measure `net` as it will be shipped; write model.safetensors, config.json, metrics.json and MODEL_CARD.md to `folder`, and the numbers into `notes` (default NOTES.md).

    `training` holds at least "steps" (by stage) and "command". Returns the metrics.
    """
    with tempfile.TemporaryDirectory() as trial:
        measured = evaluate(shipped(net, Path(trial)), root, quick, say)
    metrics = {"licence": LICENCE, "trained_on": trained_on, "metrics": measured, "training": training}
    write(folder, net, net.config, metrics, card(metrics, parameters(net)))
    fill(notes or Path(__file__).with_name("NOTES.md"), table(metrics))
    return metrics


def rewrite(predictor: Predictor, folder: Path, measured: dict) -> None:
    """New numbers for the weights in `folder`: metrics.json, MODEL_CARD.md, and NOTES.md of this room."""
    file = folder / "metrics.json"
    metrics = {**json.loads(file.read_text(encoding="utf-8")), "metrics": measured}
    file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card(metrics, parameters(predictor.net)), encoding="utf-8")
    fill(Path(__file__).with_name("NOTES.md"), table(metrics))


def main(argv: list[str] | None = None) -> dict:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", default="embedded", help="embedded, hub:owner/name, or a file or folder (default embedded)")
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--quick", action="store_true", help="a little of everything: says only that it runs")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--json", type=Path, help="write the numbers there too")
    p.add_argument("--write", action="store_true", help="of the embedded weights: write metrics.json, MODEL_CARD.md and the table in NOTES.md anew")
    a = p.parse_args(argv)
    torch.set_num_threads(a.threads)
    if a.write and (a.weights != "embedded" or a.quick):
        p.error("--write is for the embedded weights, fully measured")
    predictor = Predictor.from_pretrained(a.weights)
    measured = evaluate(predictor, data_root(a.data), a.quick)
    if a.write:
        rewrite(predictor, Path(__file__).with_name("weights"), measured)
    print("", table({"metrics": measured}), sep="\n")
    if a.json:
        a.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return measured


if __name__ == "__main__":
    main()
