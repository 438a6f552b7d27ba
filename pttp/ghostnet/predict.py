"""GhostNet as a classifier: a picture in, the most probable of 1,000 ImageNet classes out."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pttp import images, weights
from pttp.errors import BadInput, WeightsError
from pttp.ghostnet import classes
from pttp.ghostnet.model import GhostNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Classification:
    """The `k` most probable classes, best first: `names` (k,), `indices` (k,) in ImageNet-1k's order, `probabilities` (k,) in [0, 1]."""

    names: tuple[str, ...]
    indices: tuple[int, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict:
        return {"names": list(self.names), "indices": list(self.indices), "probabilities": [round(p, 6) for p in self.probabilities]}


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input; it travels with the weights, in config.json.

    The shorter side is resized to `size / crop` (antialiased, `interpolation` "bicubic" or "bilinear"), then the centre `size` x `size` is taken.
    """

    size: int = 224
    crop: float = 0.875
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"

    @classmethod
    def from_config(cls, config: dict) -> "Preprocess":
        """Ours (`preprocess`), or timm's (`pretrained_cfg`) for the weights that the Hub holds."""
        given = config.get("preprocess")
        if given is None:
            timm = config.get("pretrained_cfg", {})
            given = {"size": timm.get("input_size", (3, 224, 224))[1], "crop": timm.get("crop_pct", 0.875)} | {k: timm[k] for k in ("mean", "std", "interpolation") if k in timm}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})

    def crop_of(self, picture: Image.Image) -> Image.Image:
        """The square that the network sees, `size` x `size`."""
        w, h = picture.size
        side = min(w, h) * self.crop  # in pixels of the picture
        x, y = (w - side) / 2, (h - side) / 2
        return picture.resize((self.size, self.size), Image.Resampling[self.interpolation.upper()], box=(x, y, x + side, y + side))

    def __call__(self, picture: Image.Image) -> Tensor:
        """RGB picture -> (1, 3, size, size)."""
        x = torch.from_numpy(np.array(self.crop_of(picture))).permute(2, 0, 1)[None].float() / 255
        return (x - torch.tensor(self.mean).view(1, 3, 1, 1)) / torch.tensor(self.std).view(1, 3, 1, 1)


class Predictor(weights.Pretrained):
    """`predict(image)` -> Classification. `net` is the plain network (what `study` looks into); answers come from its inference form."""

    room = "ghostnet"

    @staticmethod
    def build(config: dict) -> GhostNet:
        """The network that `config` (config.json beside the weights) describes; timm's config means width 1.0 with 1,000 classes."""
        keys = ("num_classes", "width", "dropout", "ratio")
        return GhostNet(**{k: config[k] for k in keys if k in config})

    def ready(self) -> None:
        from pttp.ghostnet.fast import inference_form

        if self.net.classifier.out_features != len(classes.names()):
            raise WeightsError(f"These weights tell {self.net.classifier.out_features} classes apart, and names are known for ImageNet's {len(classes.names()):,}: choose others.")
        self.preprocess = Preprocess.from_config(self.config)
        self.fast = inference_form(self.net)

    def predict(self, image: images.Picture, top: int = 5) -> Classification:
        """Classify a path, a PIL image or an (H, W, 3) uint8 RGB array; `top` is how many classes to return, 1 to 1000.

        Raises BadImage for what cannot be read and BadInput for a `top` out of range.
        """
        if not 1 <= top <= 1000:
            raise BadInput(f"`top` must lie between 1 and 1000, not {top}.")
        x = self.preprocess(images.read(image)).to(self.device)
        with torch.inference_mode():
            probabilities, indices = self.fast(x)[0].float().softmax(0).topk(top)
        names = classes.names()
        return Classification(tuple(names[i] for i in indices.tolist()), tuple(indices.tolist()), tuple(probabilities.tolist()))
