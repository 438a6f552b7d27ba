"""How the embedded localiser is made: `python -m pttp.cagan.train_locate --help`.

It learns from the label maps of celebamask_mini: corners of eyes and mouth are the ends of their labels. Faces are laid, turned and at any size, on photos without
people: cut out along their labels, as they are with their own background, or filling the picture. Something may hide an eye or the mouth, and some
pictures show no face at all.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.cagan import locate
from pttp.cagan.locate import MIRRORED, Face, Locator
from pttp.cagan.losses import gaussian_blur
from pttp.training.export import start_trunk
from pttp.training.loop import amount, fit, leave_to_main, processes, trunk_groups
from pttp.training.photos import Photos, colour_jitter, data_root, larger_photos, rand, random_views

SIZE = 288
FOLDERS = ("oxford_pets_subset/images", "weizmann_horses/images", "animals_misc/images", "feral_cats/images", "ecssd_salient/images")  # hardly a person in them
TILT = 0.61  # radians: 35 degrees
HIDDEN = 0.15  # of the faces have something in front of an eye or the mouth
LEAST = 20  # pixels of a label that may be called a part


@dataclass
class Faces:
    """`pixels` (N, 4, S, S) uint8, RGB and 255 where the person is; `points` (N, 8, 2) in pixels; `visible` (N, 3) bool, see locate.PARTS."""

    pixels: Tensor
    points: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def _pieces(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of the connected pieces of a mask, the largest first; at least one, maybe empty."""
    numbers, count = ndimage.label(mask)
    found = [np.nonzero(numbers == i + 1) for i in range(count)]
    return sorted(found, key=lambda p: -len(p[0])) or [(np.zeros(0, int), np.zeros(0, int))]


def parts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a label map (H, W) the points (8, 2) and which parts show (3,) bool; points of others are NaN."""
    points, visible = np.full((8, 2), np.nan), np.zeros(3, bool)
    y, x = _pieces(np.isin(labels, (10, 11, 12)))[0]
    if len(x) < LEAST:
        return points, visible
    points[4:] = [(x.min(), y[x == x.min()].mean()), (x.max(), y[x == x.max()].mean()), (x[y == y.min()].mean(), y.min()), (x[y == y.max()].mean(), y.max())]
    visible[2] = True
    # left and right of the labels are now the person's, now the picture's, and now and then one label has both: the side of the mouth decides
    middle = x.mean()
    for y, x in _pieces(np.isin(labels, (4, 5))):
        side = int(x.mean() > middle) if len(x) else 0
        if len(x) >= LEAST and not visible[side]:
            points[2 * side : 2 * side + 2] = [(at, y[x == at].mean()) for at in (x.min(), x.max())]
            visible[side] = True
    return points, visible


def read(root: Path, split: str) -> Faces:
    """The faces of celebamask_mini, `split` "train" or "test", that show the mouth and an eye. A hidden eye is put where a symmetric face would have it."""
    pixels, points, visible = [], [], []
    for path in sorted((root / "celebamask_mini" / split / "faces").glob("*.jpg")):
        labels = np.asarray(Image.open(root / "celebamask_mini" / split / "masks" / f"{path.stem}.png"))
        at, shown = parts(labels)
        if not shown[2] or not shown[:2].any():
            continue
        for side in (0, 1):
            if not shown[side]:
                other = at[2 - 2 * side : 4 - 2 * side]
                at[2 * side : 2 * side + 2] = np.stack([2 * at[4:6, 0].mean() - other[::-1, 0], other[::-1, 1]], 1)
        photo = np.asarray(Image.open(path).convert("RGB"))
        pixels.append(np.concatenate([photo, np.where(labels > 0, 255, 0).astype(np.uint8)[..., None]], 2).transpose(2, 0, 1))
        points.append(at)
        visible.append(shown)
    if not pixels:
        raise SystemExit(f"no faces in {root / 'celebamask_mini' / split}: give the folder of the collections with --data DIR")
    return Faces(torch.from_numpy(np.stack(pixels)), np.stack(points), np.stack(visible))


def _uniform(g: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=g))


def laid(picture: Tensor, faces: Faces, index: int, g: torch.Generator, reach: tuple[float, float], cut: bool, tilt: float = TILT) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Face `index` in front of `picture` (3, H, W) in [0, 1], its photo `reach` pixels wide; `cut`: without its own background. Picture, points, visible."""
    height, width = picture.shape[1:]
    own, points, visible = faces.pixels[index], faces.points[index], faces.visible[index]
    n = own.shape[-1]
    side = float(np.exp(_uniform(g, np.log(reach[0]), np.log(reach[1]))))
    angle, mirrored = _uniform(g, -tilt, tilt), float(torch.rand((), generator=g)) < 0.5
    middle = np.array([_uniform(g, 0.2, 0.8) * width, _uniform(g, 0.2, 0.8) * height])
    if side > 0.9 * min(height, width):
        middle = np.array([_uniform(g, 0.4, 0.6) * width, _uniform(g, 0.4, 0.6) * height])
    c, s = np.cos(angle) * side / n, np.sin(angle) * side / n
    forward = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    back = np.linalg.inv(forward)
    # pixel (x, y) of the picture -> pixel of the face, then to grid_sample's [-1, 1]
    offset = (n - 1) / 2 - back @ middle
    rows = back * 2 / n
    theta = np.column_stack([rows @ np.diag([width / 2, height / 2]), rows @ np.array([(width - 1) / 2, (height - 1) / 2]) + (2 * offset + 1) / n - 1])
    grid = F.affine_grid(torch.from_numpy(theta)[None].float(), [1, 4, height, width], align_corners=False)
    source = own[None].float() / 255
    if side < 0.7 * n:
        smaller = max(8, round(1.4 * side))
        source = F.interpolate(source, size=(smaller, smaller), mode="bilinear", antialias=True, align_corners=False)
    source = torch.cat([source[:, :3], torch.ones_like(source[:, :1]) if not cut else source[:, 3:]], 1)
    seen = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)[0]
    rgb, mask = seen[:3], seen[3:]
    if cut:
        mask = gaussian_blur(F.pad(mask[None], (2, 2, 2, 2), mode="replicate"), 5, 1.0)[0]
    at = (points - (n - 1) / 2) @ forward.T + middle
    if mirrored:
        at, visible = at[list(MIRRORED)], visible[[1, 0, 2]]
    inside = (at > -2).all(1) & (at < np.array([width, height]) + 1).all(1)
    visible = visible & np.array([inside[list(own)].all() for own in locate.PARTS.values()])
    return picture * (1 - mask) + rgb * mask, at, visible


def hidden(picture: Tensor, points: np.ndarray, visible: np.ndarray, part: int, g: torch.Generator) -> tuple[Tensor, np.ndarray]:
    """The same face with something in front of a part: a lengthy blob, skin-coloured with a few shadows like a hand, or of any other colour."""
    own = points[list(tuple(locate.PARTS.values())[part])]
    height, width = picture.shape[1:]
    size, middle, angle = locate.height_of(points), own.mean(0), _uniform(g, 0, np.pi)
    y, x = torch.meshgrid(torch.arange(height) - float(middle[1]), torch.arange(width) - float(middle[0]), indexing="ij")
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    spread = max(0.6 * float(np.ptp(own, axis=0).max()), 0.3 * size)
    mask = (((along / (spread * _uniform(g, 1, 1.8))) ** 2 + (across / (spread * _uniform(g, 0.9, 1.2))) ** 2) < 1).float()[None]
    cheek = np.clip((points[4:].mean(0) + 3 * points[:2].mean(0)) / 4, 0, [width - 1, height - 1]).astype(int)
    colour = picture[:, cheek[1], cheek[0]] if float(torch.rand((), generator=g)) < 0.6 else torch.rand(3, generator=g)
    fingers = 1 - 0.25 * (torch.sin(across * (2 * np.pi / max(0.25 * size, 2.0))) > 0.7).float()
    blob = (colour.view(3, 1, 1) * _uniform(g, 0.8, 1.15) * fingers + 0.02 * torch.randn(picture.shape, generator=g)).clamp(0, 1)
    mask = gaussian_blur(F.pad(mask[None], (2, 2, 2, 2), mode="replicate"), 5, 1.0)[0]
    seen = visible.copy()
    seen[part] = False
    return picture * (1 - mask) + blob * mask, seen


def scene(background: Tensor, faces: Faces, g: torch.Generator, tilt: float = TILT) -> tuple[Tensor, list[tuple[np.ndarray, np.ndarray]]]:
    """A picture (3, H, W) in [0, 1] with no face (12 %), one, or up to three, and their points and visible parts."""
    side = min(background.shape[1:])
    kind = float(torch.rand((), generator=g))
    if kind < 0.12:
        return background, []
    picks = torch.randint(len(faces), (3,), generator=g).tolist()
    if kind < 0.37:  # a portrait that fills the picture
        picture, at, visible = laid(background, faces, picks[0], g, (0.9 * side, 1.6 * side), False, tilt)
        if float(torch.rand((), generator=g)) < HIDDEN:
            picture, visible = hidden(picture, at, visible, int(torch.randint(3, (), generator=g)), g)
        return picture, [(at, visible)]
    count = 1 if kind < 0.8 else 2 if kind < 0.92 else 3
    picture, found = background, []
    for i in picks[:count]:
        picture, at, visible = laid(picture, faces, i, g, (0.2 * side, (1.2 if count == 1 else 0.5) * side), float(torch.rand((), generator=g)) < 0.6, tilt)
        # what now lies behind a newer face is no face any more
        centre, size = locate.centre_of(at), locate.height_of(at)
        found = [f for f in found if np.linalg.norm(locate.centre_of(f[0]) - centre) > 2.5 * size]
        if float(torch.rand((), generator=g)) < HIDDEN:
            picture, visible = hidden(picture, at, visible, int(torch.randint(3, (), generator=g)), g)
        found.append((at, visible))
    return picture, found


class Point(nn.Module):
    """What is minimised: centre, points and visibility against the targets of locate.py."""

    def __init__(self, net: Locator):
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor, centre: Tensor, points: Tensor, known: Tensor, shown: Tensor, core: Tensor) -> dict[str, Tensor]:
        """`pictures` (B, 3, H, W) in [0, 1], and the stacked `locate.Targets`."""
        maps = self.net(pictures)
        count = core.flatten(1).any(1).sum().clamp(min=1)
        bell = F.binary_cross_entropy_with_logits(maps.centre[:, 0].float(), centre, reduction="sum") / count
        off = ((maps.points.float() - points).abs() * known).sum() / (known > 0).sum().clamp(min=1)
        seen = F.binary_cross_entropy_with_logits(maps.shown.float(), shown, reduction="none")
        seen = (seen * core[:, None]).sum() / core.sum().clamp(min=1)
        return {"loss": 0.1 * bell + 4 * off + 0.2 * seen, "centre": bell, "points": off, "shown": seen}


def batches(faces: Faces, backgrounds: Photos, batch: int, size: int = SIZE, device: torch.device | str = "cpu"):
    """Scenes with their targets."""

    def draw(step: int, g: torch.Generator) -> tuple[Tensor, ...]:
        behind = random_views(backgrounds, torch.randint(len(backgrounds), (batch,), generator=g), size, g)
        pictures, maps = [], []
        for background in behind:
            picture, found = scene(background, faces, g)
            pictures.append(picture)
            maps.append(locate.targets(found, size, size))
        x = colour_jitter(torch.stack(pictures), 0.3, g)
        grey = (rand(batch, 0, 1, g, x.device) < 0.1).view(-1, 1, 1, 1)
        x = torch.where(grey, x.mean(1, keepdim=True), x)
        x = x + rand(batch, 0, 0.04, g, x.device).view(-1, 1, 1, 1) * torch.randn(x.shape, generator=g)
        stacked = (torch.from_numpy(np.stack(field)).to(device) for field in zip(*maps, strict=True))
        return x.clamp(0, 1).to(device), *stacked

    return draw


def unseen_scenes(root: Path, count: int, size: int = 448) -> list[tuple[np.ndarray, list]]:
    """The same scenes every time, of the test faces, tilted up to 30 degrees, on photos that training leaves out: pictures (H, W, 3) uint8 and their faces."""
    faces = read(root, "test")
    backgrounds = larger_photos(root, size, folders=("general_photos/images",))
    g = torch.Generator().manual_seed(1)
    behind = random_views(backgrounds, torch.randint(len(backgrounds), (count,), generator=g), size, g)
    drawn = [scene(b, faces, g, tilt=0.5236) for b in behind]
    return [((picture.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy(), found) for picture, found in drawn]


def scores(found: list[list[Face]], true: list[list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, float]:
    """Recall (a face counts as found if its visible points are off by less than a fifth of its height on average), error of the points of found faces in % of
    the height, median and 95th percentile, of the angle in degrees, and faces per picture that are none."""
    hits, errors, turns, false = [], [], [], 0
    for seen, faces in zip(found, true, strict=True):
        used = set()
        for points, visible in faces:
            each = np.repeat(visible, [2, 2, 4])
            if not each.any():
                continue
            size = locate.height_of(points)
            offs = [np.linalg.norm(f.points[each] - points[each], axis=1) / size for f in seen]
            best = int(np.argmin([o.mean() for o in offs])) if offs else -1
            hit = best >= 0 and offs[best].mean() < 0.2
            hits.append(hit)
            if hit:
                used.add(best)
                errors.extend(100 * offs[best])
                turns.append(abs(np.degrees(seen[best].angle - Face(points, visible, 1.0).angle)))
        false += len(seen) - len(used)
    errors, turns = errors or [100.0], turns or [180.0]
    return {
        "recall": float(np.mean(hits or [0.0])),
        "points_median": float(np.median(errors)),
        "points_p95": float(np.percentile(errors, 95)),
        "angle_median": float(np.median(turns)),
        "false": false / max(1, len(found)),
    }


def evaluate(net: Locator, unseen: list[tuple[np.ndarray, list]]) -> dict[str, float]:
    return scores([locate.find_faces(net, picture) for picture, _ in unseen], [faces for _, faces in unseen])


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--trunk", type=Path, help="efficientnet_lite0.safetensors (default ../shared/weights/)")
    p.add_argument("--run", type=Path, default=Path("runs/cagan/locator"))
    p.add_argument("--steps", type=amount, default=1600, help="or minutes: 12m")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=SIZE)
    p.add_argument("--lr", type=float, default=1e-3, help="of everything but the trunk, which has a fifth of it")
    p.add_argument("--frozen", type=int, default=1, help="stages of the trunk, from the picture on, that stay as ImageNet made them")
    p.add_argument("--scenes", type=int, default=100, help="how many the evaluation has")
    p.add_argument("--eval-every", type=int, default=400)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args(argv)

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    device = processes().device
    root = data_root(a.data)
    faces, backgrounds = read(root, "train"), larger_photos(root, 320, folders=FOLDERS)
    unseen = unseen_scenes(root, a.scenes)
    net = Locator()
    start_trunk(net.trunk, a.trunk or root.parent / "weights" / "efficientnet_lite0.safetensors")
    for part in (net.trunk.conv_stem, net.trunk.bn1, net.trunk.blocks[: a.frozen]):
        part.requires_grad_(False)
    net = fit(
        Point(net),
        net,
        batches(faces, backgrounds, a.batch, a.size, device),
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
    save_file({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, a.run / "locator.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
