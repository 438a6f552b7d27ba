"""PolarMask as a predictor: every object of a picture as a centre and its rays, or the one around a point."""
from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pttp import images, weights
from pttp.errors import BadInput
from pttp.polarmask import official
from pttp.polarmask.classes import COCO
from pttp.polarmask.session import SHOWN, PolarInstance, Session
from pttp.polarmask.slim import SlimPolarMask
from pttp.resnet import inference_form

__all__ = ["PolarInstance", "Predictor", "Session"]


class Predictor(weights.Pretrained):
    """`predict(image)` and `predict_at(image, point)`; or `open(image)`, a session that sees the picture once, for several questions."""

    room = "polarmask"

    @staticmethod
    def build(config: dict) -> nn.Module:
        """The network that `config` describes: ours ("slim"), or the authors'."""
        return SlimPolarMask(**config["net"]) if config.get("kind") == "slim" else official.build(config)

    def ready(self) -> None:
        given = self.config["preprocess"]
        if self.config.get("kind") == "slim":
            self.form = self.net
            self.options = {"classes": self.config["classes"], "longest": given["longest"], "centerness": self.config.get("centerness", True), "mirror": self.config.get("mirror", False)}
        else:
            self.form = inference_form(self.net)
            count = self.net.num_classes
            self.options = {"classes": COCO if count == len(COCO) else [f"class {i + 1}" for i in range(count)], "scale": given["scale"], "keep_ratio": given["keep_ratio"]}

    def open(self, image: images.Picture) -> Session:
        """Let the network see a picture: all the heavy work. Raises BadImage."""
        return Session(self.form, images.to_array(image), **self.options)

    def predict(self, image: images.Picture, score: float = SHOWN) -> list[PolarInstance]:
        """Every object with at least this `score`, best first, at most 100. Raises BadImage, and BadInput for a `score` outside of 0 to 1.5."""
        if not 0 <= score <= 1.5:
            raise BadInput(f"`score` must lie between 0 and 1.5, not {score:g}.")
        return self.open(image).instances(score)

    def predict_at(self, image: images.Picture, point: Sequence[float]) -> PolarInstance:
        """The contour that the network draws around `point` (x, y) in pixels. Raises BadImage, and BadInput for a point outside of the picture."""
        return self.open(image).at(point)
