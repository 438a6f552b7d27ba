"""How the embedded detector is made: `python -m pttp.stegastamp.train_detector --help`.

It learns from the scenes of scenes.py to draw the mask, the centre and the corners of every picture in them. With `--stamp FOLDER` the pictures are stamped
by that encoder. Without it they carry a random, band-limited coloured pattern of 30 to 33 dB in its place: the encoder takes hours, and what makes a picture a picture
(its straight border, its light, its own perspective) can be learned meanwhile. `--start detector.safetensors` goes on from there with the real stamps.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.stegastamp import detect, scenes
from pttp.stegastamp.detect import Detector, Found
from pttp.stegastamp.model import StegaStamp
from pttp.training.export import start_trunk, tensors
from pttp.training.loop import amount, fit, leave_to_main, processes, trunk_groups
from pttp.training.photos import Photos, data_root

SIZES = ((224, 384), (224, 384), (288, 288), (384, 224))  # of the scenes, about as many pixels each
EVAL_SIZE = (360, 640)


class Draw(nn.Module):
    """What is minimised: mask, centre and corners against the targets of detect.py."""

    def __init__(self, net: Detector):
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor, mask: Tensor, centre: Tensor, corners: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """`frames` (B, 3, H, W) uint8, and the stacked `detect.Targets`."""
        maps = self.net(frames.float() / 255)
        border = ((mask > 0.02) & (mask < 0.98)).float()
        per_cell = F.binary_cross_entropy_with_logits(maps.mask[:, 0].float(), mask, reduction="none")
        # soft targets leave a rest that no network can remove: it is taken off, so that the number says how far there is to go
        rest = -(torch.xlogy(mask, mask) + torch.xlogy(1 - mask, 1 - mask))
        mask_loss = ((per_cell - rest) * (1 + 4 * border)).mean()
        count = (scale.flatten(1) > 0).any(1).sum().clamp(min=1)
        centre_loss = F.binary_cross_entropy_with_logits(maps.centre[:, 0].float(), centre, reduction="sum") / count
        corner_loss = self.corner_loss(maps.corners.float(), corners, scale)
        return {"loss": 2 * mask_loss + 0.05 * centre_loss + corner_loss, "mask": mask_loss, "centre": centre_loss, "corners": corner_loss}

    @staticmethod
    def corner_loss(said: Tensor, corners: Tensor, scale: Tensor) -> Tensor:
        """Mean distance of the corners in sides of the picture, for the best of the four ways to number them.

        Seen from outside nobody can tell with which corner a square begins; a fixed rule would have a jump at 45 degrees.
        """
        core = scale > 0
        if not core.any():
            return said.sum() * 0
        said, corners = said.permute(0, 2, 3, 1)[core].view(-1, 4, 2), corners.permute(0, 2, 3, 1)[core].view(-1, 4, 2)
        ways = torch.stack([(said - corners.roll(k, 1)).abs().sum(2).mean(1) for k in range(4)])  # (4, cells)
        return (ways.amin(0) / scale[core]).mean()


def batches(pictures: Photos, backgrounds: Photos, batch: int, device: torch.device | str = "cpu", sizes: tuple[tuple[int, int], ...] = SIZES):
    """Scenes of one of the `sizes`, with their targets."""

    def draw(step: int, g: torch.Generator) -> tuple[Tensor, ...]:
        height, width = sizes[int(torch.randint(len(sizes), (), generator=g))]
        frames, maps = [], []
        for _ in range(batch):
            frame, quads = scenes.scene(pictures, backgrounds, g, height, width)
            frames.append(torch.from_numpy(frame))
            maps.append(detect.targets(quads, height, width))
        targets = (torch.from_numpy(np.stack(field)).to(device) for field in zip(*maps, strict=True))
        return torch.stack(frames).permute(0, 3, 1, 2).to(device), *targets

    return draw


@dataclass(frozen=True)
class Scenes:
    """Frames (H, W, 3) uint8 and their quads (n, 4, 2)."""

    frames: list[np.ndarray]
    quads: list[np.ndarray]


def unseen_scenes(root: Path, net: StegaStamp | None, count: int = 200, size: tuple[int, int] = EVAL_SIZE) -> Scenes:
    """The same scenes every time, of photos that training leaves out: 10 % without a picture, 10 % with two; 30 to 90 % of the width, tilted up to 45 degrees."""
    paths = scenes.photo_paths(root, keep_aside=False)
    half = len(paths) // 2
    g = torch.Generator().manual_seed(1)
    pictures, _ = scenes.stamp_photos(scenes.load_photos(paths, min(half, count), 448), net, g)
    backgrounds = scenes.load_photos(paths, min(half, count), 448, skip=half)
    drawn = [scenes.scene(pictures, backgrounds, g, *size, counts=(0.1, 0.8, 0.1), fill=(0.3, 0.9), tilt=45, outside=0) for _ in range(count)]
    return Scenes([frame for frame, _ in drawn], [quads for _, quads in drawn])


def scores(found: list[list[Found]], quads: list[np.ndarray]) -> dict[str, float]:
    """Recall at an IoU above .8 and .9; of the corners of found pictures the error in % of the mean side, median and 95th percentile; the share of all
    pictures whose four corners are within 3 %; false alarms a scene."""
    best, errors, worst, false = [], [], [], 0
    for seen, true in zip(found, quads, strict=True):
        overlap = np.array([[detect.quad_iou(f.quad, q) for f in seen] for q in true]).reshape(len(true), len(seen))
        false += int((overlap.max(0) < 0.5).sum()) if len(true) else len(seen)
        for q, row in zip(true, overlap, strict=True):
            best.append(row.max() if len(row) else 0.0)
            off = np.full(4, np.inf)
            if best[-1] > 0.5:
                quad = seen[row.argmax()].quad
                off = min((np.linalg.norm(np.roll(quad, k, 0) - q, axis=1) for k in range(4)), key=np.sum) / detect.mean_side(q) * 100
                errors.extend(off)
            worst.append(off.max())
    best, errors = np.array(best), np.array(errors or [100.0])
    return {
        "recall80": float((best > 0.8).mean()),
        "recall90": float((best > 0.9).mean()),
        "corner_median": float(np.median(errors)),
        "corner_p95": float(np.percentile(errors, 95)),
        "within3": float((np.array(worst) < 3).mean()),
        "false": false / max(1, len(found)),
    }


def evaluate(net: Detector, unseen: Scenes) -> dict[str, float]:
    return scores([detect.find_quads(net, frame) for frame in unseen.frames], unseen.quads)


def load_stamp(folder: Path) -> StegaStamp:
    """The encoder of `folder`: its model.safetensors and config.json, else the checkpoints of a training that still runs."""
    from pttp.stegastamp.train import started, trained

    return started([folder]) if (folder / "model.safetensors").exists() else trained(folder)[0]


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--features", type=Path, help="efficientnet_lite0.safetensors, the trunk's first weights (default ../shared/weights/)")
    p.add_argument("--stamp", type=Path, help="folder with the encoder that stamps the pictures (default: a random pattern instead)")
    p.add_argument("--start", type=Path, help="a detector.safetensors to go on from")
    p.add_argument("--run", type=Path, default=Path("runs/stegastamp/detector"))
    p.add_argument("--steps", type=amount, default=2400, help="or minutes: 12m")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1e-3, help="of everything but the trunk, which has a fifth of it")
    p.add_argument("--photos", type=int, default=900, help="how many are hung, and as many others lie behind them")
    p.add_argument("--scenes", type=int, default=200, help="how many the evaluation has")
    p.add_argument("--eval-every", type=int, default=400)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args(argv)

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    device = processes().device
    root = data_root(a.data)
    stamp = load_stamp(a.stamp) if a.stamp else None
    paths = scenes.photo_paths(root)
    count = min(a.photos, len(paths) // 2)
    pictures, _ = scenes.stamp_photos(scenes.load_photos(paths, count, 320), stamp, torch.Generator().manual_seed(a.seed), plain=0.3)
    backgrounds = scenes.load_photos(paths, count, 448, skip=count)
    unseen = unseen_scenes(root, stamp, a.scenes)

    net = Detector()
    if a.start:
        net.load_state_dict(tensors(a.start))
    else:
        start_trunk(net.trunk, a.features or root.parent / "weights" / "efficientnet_lite0.safetensors")
    net = fit(
        Draw(net),
        net,
        batches(pictures, backgrounds, a.batch, device),
        folder=a.run,
        steps=a.steps,
        groups=trunk_groups(net, a.lr, 1e-4),
        warmup=50,
        ema=0.998,
        seed=a.seed,
        evaluate=lambda net: evaluate(net, unseen),
        eval_every=a.eval_every,
    )
    leave_to_main()
    save_file({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, a.run / "detector.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
