"""The checkpoints that the authors have published. Importing this imports no torch: the page lists them."""
from __future__ import annotations

from dataclasses import dataclass

BASE = "https://dl.fbaipublicfiles.com/detectron2/PointRend/"


@dataclass(frozen=True)
class Published:
    """A checkpoint of the authors. `score` is the mask AP (COCO or Cityscapes val) or mIoU that they report; `path` is below BASE."""

    name: str
    score: str
    path: str

    @property
    def url(self) -> str:
        return BASE + self.path


_RCNN, _SEMANTIC = "InstanceSegmentation/pointrend_rcnn_", "SemanticSegmentation/pointrend_semantic_"
PUBLISHED = (
    Published("R50-FPN 1x", "36.2 AP", f"{_RCNN}R_50_FPN_1x_coco/164254221/model_final_736f5a.pkl"),
    Published("R50-FPN 3x", "38.3 AP", f"{_RCNN}R_50_FPN_3x_coco/164955410/model_final_edd263.pkl"),
    Published("R101-FPN 3x", "40.1 AP", f"{_RCNN}R_101_FPN_3x_coco/28119983/model_final_3f4d2a.pkl"),
    Published("X101-32x8d-FPN 3x", "41.1 AP", f"{_RCNN}X_101_32x8d_FPN_3x_coco/28119989/model_final_ba17b9.pkl"),
    Published("R50-FPN 1x, Cityscapes", "35.9 AP", f"{_RCNN}R_50_FPN_1x_cityscapes/164255101/model_final_115bfb.pkl"),
    Published("Semantic R101-FPN, Cityscapes", "78.9 mIoU", f"{_SEMANTIC}R_101_FPN_1x_cityscapes/202576688/model_final_cf6ac1.pkl"),
)
