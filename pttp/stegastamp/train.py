"""How the embedded encoder and decoder are made: `python -m pttp.stegastamp.train --help`.

The authors ramp their losses by step count over 140,000 steps of 400 x 400 pictures. Ours learns the message on small pictures first and lets the bits
that it reads open the gates:

1. the residual may be loud (a hinge keeps it below L = 1) and nothing disturbs it, until the bits are read;
2. while they are, L falls to 0.05, then the image losses and the distortions of distort.py rise; when too many bits are lost the image losses fall back;
3. the same, from loud to quiet, at larger sizes (`small`, `medium`, `large`). What is carried over (`model.resized`) does not read the message at the new
   size at once (probably because most of what a small picture's convolutions see is its border), but learns to within some 100 steps; a fresh start needs several
   hundred.

All layers start He-normal, the decoder's too. The last stage has the perceptual loss (features of EfficientNet-Lite0, where the authors have LPIPS) and
the critic.

The end is evaluate.export, with the detector of `detector/detector.safetensors` in the run's folder where there is one. `--export-only` does that alone, with what the
checkpoints hold by now. `--start FOLDER` goes on from weights that are finished, through the same gates; their detector comes along where the run has none.
"""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pttp import trunk
from pttp.stegastamp import distort, links, message
from pttp.stegastamp.evaluate import export
from pttp.stegastamp.losses import secret_accuracy, secret_loss
from pttp.stegastamp.model import Critic, StegaStamp, he_init, resized
from pttp.training.export import add_start, command, gone_on, mean_of
from pttp.training.loop import amount, drawn, fit, leave_to_main, parameter_groups, processes
from pttp.training.photos import PHOTO_FOLDERS, Photos, data_root, held_out, larger_photos, random_views


@dataclass(frozen=True)
class Stage:
    """`gate`: the running bit accuracy above which things get harder; `perceptual` and `critic`: their weights where the squared error has 1."""

    size: int
    steps: int
    batch: int
    lr: float
    gate: float = 0.9
    image_limit: float = 80.0
    noise_limit: float = 1.0
    perceptual: float = 0.0
    critic: float = 0.0
    ema: float = 0.999


STAGES = {
    "small": Stage(96, 1_000, 16, 3e-4, noise_limit=0.6, ema=0.99),
    "medium": Stage(160, 5_000, 16, 2e-4, gate=0.95, image_limit=200.0, noise_limit=0.9),
    "large": Stage(256, 20_000, 4, 1.5e-4, gate=0.95, image_limit=400.0, perceptual=0.02, critic=1e-4),
}
AHEAD = 0.03  # the picture may get better before the noise may get worse, or it never would
FALL_BACK = 0.06  # below gate - FALL_BACK the image losses give way


def clamp_through(x: Tensor) -> Tensor:
    """Clipped to [0, 1] with the gradient of the identity: a clipped pixel can still be told to come back."""
    return x + (x.clamp(0, 1) - x).detach()


class Perceptual(nn.Module):
    """Distance of two pictures in features of EfficientNet-Lite0 at strides 2 to 16, scaled to length 1 at each position (LPIPS without its learned weights)."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        self.trunk = trunk.Trunk(max_stride=16)
        own = self.trunk.state_dict()
        self.trunk.load_state_dict({k: v for k, v in trunk.trunk_tensors(weights).items() if k in own})
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) RGB in [0, 1] -> one number."""
        self.trunk.eval()
        maps = self.trunk((torch.cat([x, y]) - trunk.MEAN) / trunk.STD)
        distances = []
        for features in maps.values():
            a, b = F.normalize(features.float(), dim=1).chunk(2)
            distances.append((a - b).square().sum(1).mean())
        return torch.stack(distances).mean()


class Hide(nn.Module):
    """What is minimised. The gates are buffers, so that a resumed run finds them where they were.

    `accuracy` is the running bit accuracy under the distortions, `bound` L of the residual's hinge, `image` the weight of the image losses, `noise` the
    strength of the distortions.
    """

    def __init__(self, net: StegaStamp, stage: Stage, perceptual: Perceptual | None = None):
        super().__init__()
        self.net, self.stage, self.perceptual = net, stage, perceptual if stage.perceptual else None
        self.critic = Critic() if stage.critic else None
        for name, start in (("accuracy", 0.5), ("bound", 1.0), ("image", 0.0), ("noise", 0.0)):
            self.register_buffer(name, torch.tensor(start))

    def forward(self, views: Tensor, secret: Tensor, seed: int) -> dict[str, Tensor]:
        """`views` (B, 3, S, S) RGB in [0, 1], `secret` (B, 100), `seed` of the distortions."""
        image_weight, noise = float(self.image), float(self.noise)
        residual = self.net.encoder(views, secret).float()
        stamped = views + residual
        if image_weight:
            stamped = clamp_through(stamped)
        with torch.autocast(views.device.type, enabled=False):
            seen = distort.camera(stamped, noise, torch.Generator().manual_seed(seed)) if noise else stamped
        logits = self.net.decoder(seen).float()
        message_loss, squared = secret_loss(logits, secret), (stamped - views).square().mean()
        loss = message_loss + 10 * F.relu(residual.abs() - self.bound).square().mean() + image_weight * squared
        zero = torch.zeros_like(message_loss)
        perceived = self.perceptual(stamped, views) if self.perceptual and image_weight else zero
        loss = loss + image_weight * self.stage.perceptual * perceived
        told_apart = zero
        if self.critic:
            fooled, told_apart = self.judge(stamped, views)
            loss = loss + image_weight * self.stage.critic * fooled + told_apart
        bits, messages = secret_accuracy(logits, secret)
        if self.training:
            self.move_gates(bits)
        psnr = -10 * torch.log10(squared.detach().clamp(min=1e-9))
        state = {"accuracy": float(self.accuracy), "bound": float(self.bound), "image": image_weight, "noise": noise}
        parts = {"secret": message_loss, "bits": torch.tensor(bits), "messages": torch.tensor(messages), "psnr": psnr, "perceived": perceived, "critic": told_apart}
        return {"loss": loss, **parts, **state}

    def judge(self, stamped: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's loss (the critic held fixed) and the critic's own, whose weights stay within 0.01 as in a Wasserstein GAN."""
        with torch.no_grad():
            for p in self.critic.parameters():
                p.clamp_(-0.01, 0.01)
        fixed = {name: p.detach() for name, p in self.critic.named_parameters()}
        fooled = functional_call(self.critic, fixed, (stamped,))
        return fooled, self.critic(views) - self.critic(stamped.detach())

    def move_gates(self, bits: float) -> None:
        """Harder while the message is read, easier when it is lost."""
        s = self.stage
        self.accuracy.mul_(0.98).add_(0.02 * bits)
        if self.accuracy > s.gate - AHEAD:
            self.bound.mul_(0.99).clamp_(min=0.05)
            if self.bound < 0.5:
                self.image.clamp_(min=0.2).mul_(1.01).clamp_(max=s.image_limit)
                if self.accuracy > s.gate:
                    self.noise.add_(0.004).clamp_(max=s.noise_limit)
        elif self.accuracy < s.gate - FALL_BACK:
            self.image.mul_(0.99)


def batches(photos: Photos, stage: Stage, bits: int):
    """Random views of the photos, and fair coins: all 100 of them, so that the nine constant bits of a real message are bits that the decoder must read."""

    def draw(step: int, g: torch.Generator) -> tuple[Tensor, Tensor, int]:
        index = torch.randint(len(photos), (stage.batch,), generator=g)
        views = random_views(photos, index, stage.size, g, (0.35, 1.0))
        secret = torch.randint(2, (stage.batch, bits), generator=g).float().to(views.device)
        return views, secret, int(torch.randint(2**62, (), generator=g))

    return draw


def unseen_photos(root: Path, size: int, count: int) -> Tensor:
    """(count, 3, size, size) in [0, 1]: the middle of photos that training leaves out, spread over all of them."""
    paths = sorted(p for p in held_out(root) if p.exists())
    paths = paths[:: max(1, len(paths) // count)][:count]
    pixels = [np.asarray(ImageOps.fit(Image.open(p).convert("RGB"), (size, size), Image.Resampling.LANCZOS)) for p in paths]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def evaluate(net: StegaStamp, photos: Tensor, noise: float = 0.5, batch: int = 16) -> dict[str, float]:
    """PSNR, bit accuracy and share of messages read, on `photos` (N, 3, S, S) stamped with real messages and rounded to 8 bits.

    Untouched ("clean") and after `distort.camera` at strength `noise` ("camera").
    """
    rng, device = np.random.default_rng(0), next(net.parameters()).device
    texts = ["".join(rng.choice(list(links.ALPHABET), message.BYTES)) for _ in range(len(photos))]
    secrets = torch.from_numpy(np.stack([message.pack(t) for t in texts])).float()
    squared, right, read = [], {"clean": [], "camera": []}, {"clean": [], "camera": []}
    g = torch.Generator().manual_seed(0)
    for x, secret, said in zip(photos.split(batch), secrets.split(batch), [texts[i : i + batch] for i in range(0, len(texts), batch)], strict=True):
        x, secret = x.to(device), secret.to(device)
        stamped = ((x + net.encoder(x, secret)).clamp(0, 1) * 255).round() / 255
        squared.append((stamped - x).square().mean((1, 2, 3)))
        for name, seen in (("clean", stamped), ("camera", distort.camera(stamped, noise, g))):
            p = torch.sigmoid(net.decoder(seen))
            right[name].append(((p > 0.5) == (secret > 0.5)).float().mean(1))
            read[name] += [payload is not None and payload.message == text for payload, text in zip(message.unpack_all(p.cpu().numpy()), said, strict=True)]
    psnr = -10 * torch.log10(torch.cat(squared))
    bits = {f"{name}_bits": torch.cat(v).mean().item() for name, v in right.items()}
    return {"psnr": psnr.mean().item(), **bits, **{f"{name}_read": float(np.mean(v)) for name, v in read.items()}}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--features", type=Path, help="efficientnet_lite0.safetensors, for the perceptual loss (default ../shared/weights/)")
    p.add_argument("--run", type=Path, default=Path("runs/stegastamp"))
    add_start(p)
    for name, stage in STAGES.items():
        p.add_argument(f"--{name}", type=amount, default=stage.steps, help=f"steps at {stage.size} pixels, or minutes: 12m (default {stage.steps}; 0 leaves the stage out)")
    p.add_argument("--locator-grid", type=int, default=8, help="cells a side that the localiser's dense layer sees (0: all, as the authors'); with --start it is what they have")
    p.add_argument("--eval-every", type=int, default=1000)
    p.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches: another one for a training that goes on")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--limit", type=int, help="use only so many photos (a quick trial)")
    p.add_argument("--out", type=Path, default=Path(__file__).with_name("weights"), help="where weights, metrics.json and MODEL_CARD.md go")
    p.add_argument("--loudness", type=float, default=1.0, help="the shipped residual is so many times what was trained: it settles the PSNR that strength 1 means")
    p.add_argument("--export-only", action="store_true", help="train nothing: measure and write what the checkpoints of --run hold")
    p.add_argument("--quick", action="store_true", help="measure little at the end (a quick trial)")
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    a = p.parse_args(argv)

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    device = processes().device
    root = data_root(a.data)
    if a.export_only:
        leave_to_main()
        finish(a, root)
        return
    stages = {name: (stage, steps) for name, stage in STAGES.items() if (steps := getattr(a, name))}
    if not stages:
        p.error("every stage is left out: give at least one of them some steps")
    perceptual = None
    if any(stage.perceptual for stage, _ in stages.values()):
        from safetensors.torch import load_file

        perceptual = Perceptual(load_file(a.features or root.parent / "weights" / "efficientnet_lite0.safetensors"))
    net = started(a.start) if a.start else he_init(StegaStamp(next(iter(stages.values()))[0].size, message.BITS, a.locator_grid or None))
    net.detector = None  # it is trained by itself: see train_detector.py
    for name, (stage, steps) in stages.items():
        photos = larger_photos(root, canvas=round(stage.size * 1.5))
        if a.limit:
            photos = Photos(photos.pixels[: a.limit], photos.sizes[: a.limit], photos.labels[: a.limit])
        unseen = unseen_photos(root, stage.size, 96)
        net = (net if net.size == stage.size else resized(net, stage.size)).to(device, memory_format=torch.channels_last)
        objective = Hide(net, stage, perceptual)
        groups = parameter_groups(net, stage.lr, 0.0)
        if objective.critic:
            groups.append({"params": list(objective.critic.parameters()), "lr": 1e-5, "weight_decay": 0.0})
        net = fit(
            objective,
            net,
            batches(photos.to(device), stage, net.n_bits),
            folder=a.run / name,
            steps=steps,
            groups=groups,
            clip=1.0,
            ema=stage.ema,
            seed=a.seed,
            evaluate=lambda net, unseen=unseen: evaluate(net, unseen),
            eval_every=a.eval_every,
        )
    leave_to_main()
    finish(a, root)


def started(folders: list[Path]) -> StegaStamp:
    """The network of a folder of weights, its detector included, or the mean of several of one shape."""
    net = StegaStamp(**json.loads((folders[0] / "config.json").read_text(encoding="utf-8")))
    net.load_state_dict(mean_of(folders))
    return net.eval()


def trained(folder: Path) -> tuple[StegaStamp, dict[str, int]]:
    """The averaged network of the last stage that has a checkpoint in `folder`, with the detector if there is one, and the steps that each part has made."""
    steps, state = {}, {}
    for name in STAGES:
        file = folder / name / "last.pt"
        if file.exists():
            saved = torch.load(file, map_location="cpu", weights_only=True)
            steps[name] = saved["step"]
            state = {k.removeprefix("module."): v for k, v in saved["average"].items() if k.startswith("module.")}
    if not steps:
        raise SystemExit(f"no checkpoint in {folder}: train first, or name another folder with --run")
    size = round((len(state["encoder.secret.weight"]) / 3) ** 0.5) * 8
    grid = round((state["decoder.locator_hidden.weight"].shape[1] / 128) ** 0.5)
    detector = folder / "detector" / "detector.safetensors"
    if detector.exists():
        from safetensors.torch import load_file

        state |= {f"detector.{k}": v for k, v in load_file(detector).items()}
        if (last := detector.with_name("last.pt")).exists():
            steps["detector"] = torch.load(last, map_location="cpu", weights_only=True)["step"]
    net = StegaStamp(size, state["decoder.bits.bias"].numel(), None if grid == size // 8 else grid, detector.exists())
    net.load_state_dict(state)
    return net.eval(), steps


def finish(a: argparse.Namespace, root: Path) -> None:
    """Measure what the checkpoints hold and write what the room ships."""
    net, steps = trained(a.run)
    if a.start and net.detector is None:
        net.detector = started(a.start).detector
    with torch.no_grad():
        net.encoder.residual.weight.mul_(a.loudness)
        net.encoder.residual.bias.mul_(a.loudness)
    held = held_out(root)
    photos = sum(1 for folder in PHOTO_FOLDERS for path in (root / folder).glob("*.jpg") if path not in held)
    draws = {name: drawn(a.run / name) for name in STAGES if name in steps}
    views = sum(STAGES[name].batch * n for name, n in draws.items())
    sizes = [STAGES[name].size for name in draws]
    made = {name: steps.get(name, 0) for name in STAGES}
    said = argparse.Namespace(**vars(a) | made)
    told = command("pttp.stegastamp.train", parser(), said, (*STAGES, "locator_grid", "seed", "loudness"), sum(draws.values()) / max(1, sum(made.values())))
    training = {"steps": steps, "views": views, "command": told}
    training = gone_on(training, a.start)
    words = f"{photos:,} unlabelled photos, faces among them, {training['views']:,} random views of {' and '.join(map(str, sizes))} pixels"
    export(net, a.out, root, words, training, a.quick)


if __name__ == "__main__":
    main()
