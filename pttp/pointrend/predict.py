"""PointRend to be clicked: a picture once, then clicks; every click is obeyed."""
from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pttp import images, weights
from pttp.errors import BadInput
from pttp.pointrend import official
from pttp.pointrend.exact import Exact, ExactSession
from pttp.pointrend.session import Instance, Mask, NothingFound, Session, SubdivisionStep
from pttp.pointrend.slim import SlimPointRend

__all__ = ["Instance", "Mask", "NothingFound", "Predictor", "Session", "SubdivisionStep"]


class Predictor(weights.Pretrained):
    """`set_image(image)`, then `click(points, labels)` and `instances`; or `open(image)`, a session of its own for each of several people."""

    room = "pointrend"
    session: Session | None = None

    @staticmethod
    def build(config: dict) -> nn.Module:
        """The network that `config` describes: ours ("slim"), or one of the authors' ("instance", "semantic")."""
        return SlimPointRend(**config["net"]) if config.get("kind") == "slim" else official.build(config)

    def ready(self) -> None:
        self.net.requires_grad_(False)  # corrections go back through the point head to its input, never to its weights
        self.kind = self.config["kind"]
        if self.kind == "instance":
            self.exact = Exact(self.net, self.config)

    def open(self, image: images.Picture) -> Session:
        """Let the network see a picture: everything that does not depend on a click. Raises BadImage."""
        if self.kind == "semantic":
            raise BadInput("These weights label every pixel of a street and know no single objects: choose the weights of an instance network.")
        if self.kind == "instance":
            return ExactSession(self.exact, images.to_array(image))
        thresholds = {k: self.config[k] for k in ("sure", "shown") if k in self.config}
        return Session(self.net, images.to_array(image), self.config["preprocess"]["longest"], self.config["classes"], **thresholds)

    def set_image(self, image: images.Picture) -> None:
        """The picture that `click` and `instances` are about. Raises BadImage."""
        self.session = self.open(image)

    @property
    def instances(self) -> list[Instance]:
        """What is in the picture, found without a click, best first."""
        return self._opened().instances

    def click(self, points: Sequence, labels: Sequence, **options) -> Mask:
        """The object at the first positive point; see `Session.click`. Raises BadInput and NothingFound."""
        return self._opened().click(points, labels, **options)

    def _opened(self) -> Session:
        if self.session is None:
            raise BadInput("There is no picture yet: call set_image(picture) first.")
        return self.session
