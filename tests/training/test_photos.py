"""Photo collections and the views cut from them."""
from __future__ import annotations

import io
import zipfile

import pytest
import torch
from PIL import Image

from pttp.training import export, photos


def collection(n: int = 4, canvas: int = 32) -> photos.Photos:
    """Each picture is one colour on the upper half of its canvas; below lies black, which no view may show."""
    pixels = torch.zeros(n, 3, canvas, canvas, dtype=torch.uint8)
    pixels[:, :, : canvas // 2] = (torch.arange(n) * 40 + 60).view(-1, 1, 1, 1).to(torch.uint8)
    return photos.Photos(pixels, torch.tensor([[canvas // 2, canvas]] * n), torch.arange(n))


@pytest.mark.parametrize("size", [16, 24, 64])
def test_views_stay_inside_their_picture(size):
    views = photos.random_views(collection(), torch.tensor([0, 3, 3]), size, torch.Generator().manual_seed(0), (0.05, 1.0), jitter=0)
    assert views.shape == (3, 3, size, size)
    for view, value in zip(views, (60, 180, 180), strict=True):
        assert (view * 255 - value).abs().max() < 1


def test_views_repeat_with_their_generator():
    a, b, c = (photos.random_views(collection(), torch.arange(4), 16, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_views_are_mirrored_half_of_the_time():
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(1, 3, 32, 32).contiguous()
    one = photos.Photos(ramp, torch.tensor([[32, 32]]), torch.tensor([-1]))
    views = photos.random_views(one, torch.zeros(200, dtype=torch.long), 16, torch.Generator().manual_seed(0), jitter=0)
    rising = (views[:, 0, 0, -1] > views[:, 0, 0, 0]).float().mean()
    assert 0.4 < rising < 0.6


def test_jitter_keeps_the_range():
    x = photos.colour_jitter(torch.rand(8, 3, 5, 5), 0.9, torch.Generator().manual_seed(0))
    assert 0 <= x.min() and x.max() <= 1


def test_tiny_imagenet(tmp_path):
    (tmp_path / "tiny_imagenet").mkdir()
    with zipfile.ZipFile(tmp_path / "tiny_imagenet" / "val.zip", "w") as archive:
        for wnid, colour in (("n02", (0, 255, 0)), ("n01", (255, 0, 0))):
            file = io.BytesIO()
            Image.new("RGB", (64, 64), colour).save(file, "WEBP", lossless=True)
            archive.writestr(f"{wnid}/0001.webp", file.getvalue())
    got = photos.tiny_imagenet(tmp_path, "val", ["n00", "n01", "n02"])
    assert got.labels.tolist() == [1, 2]
    assert got.pixels[:, :, 5, 5].tolist() == [[255, 0, 0], [0, 255, 0]]


def test_held_out_photos_are_not_trained_on(tmp_path):
    for name in ("0001", "0002"):
        path = tmp_path / "ecssd_salient" / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(path)
    (tmp_path / "ecssd_salient" / "val.txt").write_text("0002\n")
    assert len(photos.larger_photos(tmp_path, 16)) == 1
    everything = photos.larger_photos(tmp_path, 16, keep_aside=False)
    assert everything.sizes.tolist() == [[8, 16], [8, 16]]


def test_missing_data_is_said(tmp_path):
    with pytest.raises(SystemExit, match="--data"):
        photos.data_root(str(tmp_path / "nowhere"))


def test_numbers_are_filled_between_their_marks(tmp_path):
    file = tmp_path / "a.md"
    file.write_text("before\n<!-- numbers -->\nold\n<!-- /numbers -->\nafter\n")
    export.fill(file, "new | 1\n")
    assert file.read_text() == "before\n<!-- numbers -->\nnew | 1\n<!-- /numbers -->\nafter\n"
    (tmp_path / "b.md").write_text("no marks")
    with pytest.raises(ValueError, match="exactly one pair"):
        export.fill(tmp_path / "b.md", "x")
