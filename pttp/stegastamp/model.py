"""StegaStamp (CVPR 2020): the networks of the paper, nothing else.

The encoder turns a picture and a secret into a residual, the decoder turns a photo of the sum back into bits, the critic tells stamped from
plain pictures while the other two are trained. Sizes in the comments are for S = 400 and 100 bits, the authors' setting; any S that is a
multiple of 16 works, only the dense layers depend on it. All convolutions pad as TensorFlow's SAME does, so that the authors' weights fit
(see official.py).
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.errors import BadInput
from pttp.stegastamp.detect import Detector

STEP = 16  # the encoder halves the picture four times
SMALLEST = 64


def check_size(size: int) -> int:
    """`size` itself; BadInput unless it is a multiple of 16 and at least 64."""
    if size < SMALLEST or size % STEP:
        raise BadInput(f"A stamp network works at a size that is a multiple of {STEP} and at least {SMALLEST}, not {size}.")
    return size


class Conv(nn.Conv2d):
    """Convolution with SAME padding: the total is what ceil(n / stride) outputs need, the odd pixel goes to the bottom and the right."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int = 3, stride: int = 1):
        super().__init__(in_chs, out_chs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        (k, s), pads = (self.kernel_size[0], self.stride[0]), []
        for n in (x.shape[-1], x.shape[-2]):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] == pads[2] == pads[3]:
            return F.conv2d(x, self.weight, self.bias, s, pads[0])
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, s)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Encoder(nn.Module):
    """A U-Net over six channels, the picture and the secret spread over a map of an eighth of its size."""

    def __init__(self, size: int = 400, bits: int = 100):
        super().__init__()
        self.grid = check_size(size) // 8
        self.secret = nn.Linear(bits, 3 * self.grid**2)
        self.conv1 = Conv(6, 32)
        self.conv2 = Conv(32, 32, stride=2)
        self.conv3 = Conv(32, 64, stride=2)
        self.conv4 = Conv(64, 128, stride=2)
        self.conv5 = Conv(128, 256, stride=2)
        self.up6 = Conv(256, 128, 2)
        self.conv6 = Conv(256, 128)
        self.up7 = Conv(128, 64, 2)
        self.conv7 = Conv(128, 64)
        self.up8 = Conv(64, 32, 2)
        self.conv8 = Conv(64, 32)
        self.up9 = Conv(32, 32, 2)
        self.conv9 = Conv(70, 32)
        self.residual = Conv(32, 3, 1)

    def forward(self, image: Tensor, secret: Tensor) -> Tensor:
        """`image` (B, 3, S, S) RGB in [0, 1], `secret` (B, bits) of 0 and 1 -> residual (B, 3, S, S): the stamped picture is `image + residual`."""
        s = F.relu(self.secret(secret - 0.5)).view(-1, 3, self.grid, self.grid)  # (B, 3, 50, 50)
        s = F.interpolate(s, scale_factor=8, mode="nearest")
        x = torch.cat([s, image - 0.5], 1)  # (B, 6, 400, 400)
        c1 = F.relu(self.conv1(x))  # (B, 32, 400, 400)
        c2 = F.relu(self.conv2(c1))  # (B, 32, 200, 200)
        c3 = F.relu(self.conv3(c2))  # (B, 64, 100, 100)
        c4 = F.relu(self.conv4(c3))  # (B, 128, 50, 50)
        c5 = F.relu(self.conv5(c4))  # (B, 256, 25, 25)
        u6 = F.relu(self.up6(double(c5)))
        c6 = F.relu(self.conv6(torch.cat([c4, u6], 1)))  # (B, 128, 50, 50)
        u7 = F.relu(self.up7(double(c6)))
        c7 = F.relu(self.conv7(torch.cat([c3, u7], 1)))  # (B, 64, 100, 100)
        u8 = F.relu(self.up8(double(c7)))
        c8 = F.relu(self.conv8(torch.cat([c2, u8], 1)))  # (B, 32, 200, 200)
        u9 = F.relu(self.up9(double(c8)))
        c9 = F.relu(self.conv9(torch.cat([c1, u9, x], 1)))  # (B, 32, 400, 400)
        return self.residual(c9)


def spatial_transform(x: Tensor, theta: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Affine resampling as the package `stn` does it, which the authors call (Jaderberg et al., 2015).

    `x` (B, C, H, W); `theta` (B, 6) = [a b c; d e f] maps output to input coordinates, both in [-1, 1]; `size` (height, width) of the output,
    default that of `x`. Two habits of that package are kept: coordinate 1 means pixel W - 2 (so the identity shrinks a little), and whatever
    leaves [0, W - 1) is zero at once, without a fade.
    """
    b, _, h, w = x.shape
    oh, ow = size or (h, w)
    if torch.is_autocast_enabled(x.device.type):  # mixed precision is too coarse for coordinates
        with torch.autocast(x.device.type, enabled=False):
            return spatial_transform(x.float(), theta.float(), size)
    xs = torch.linspace(-1, 1, ow, device=x.device, dtype=x.dtype).expand(oh, ow)
    ys = torch.linspace(-1, 1, oh, device=x.device, dtype=x.dtype)[:, None].expand(oh, ow)
    grid = torch.stack([xs, ys, torch.ones_like(xs)]).view(1, 3, -1)  # (1, 3, oh * ow)
    px, py = (theta.view(b, 2, 3) @ grid).view(b, 2, oh, ow).unbind(1)
    px, py = 0.5 * (px + 1) * (w - 2), 0.5 * (py + 1) * (h - 2)  # pixels of the input
    inside = (px >= 0) & (px < w - 1) & (py >= 0) & (py < h - 1)
    if torch.is_grad_enabled() and theta.requires_grad:
        return bilinear(x, px, py) * inside[:, None]
    grid = torch.stack([(2 * px + 1) / w - 1, (2 * py + 1) / h - 1], -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False) * inside[:, None]


def bilinear(x: Tensor, px: Tensor, py: Tensor) -> Tensor:
    """Values of `x` (B, C, H, W) between its pixels at columns `px` and rows `py` (B, h, w), tap by tap.

    The values are those of `grid_sample`, which is faster; but that one scales the coordinates there and back, and at whole pixels, where the identity
    puts two edges of the picture, it may then take the derivative in the neighbouring cell.
    """
    b, c, h, w = x.shape
    x0, y0 = px.detach().floor().clamp(0, w - 2), py.detach().floor().clamp(0, h - 2)
    fx, fy = (px - x0)[:, None], (py - y0)[:, None]
    first = (y0 * w + x0).long().view(b, 1, -1)
    nw, ne, sw, se = (x.flatten(2).gather(2, (first + offset).expand(-1, c, -1)).view(b, c, *px.shape[1:]) for offset in (0, 1, w, w + 1))
    north, south = nw + (ne - nw) * fx, sw + (se - sw) * fx
    return north + (south - north) * fy


class Decoder(nn.Module):
    """A spatial transformer (what part of the picture to read), then convolutions and two dense layers.

    `locator_grid` pools the localiser's last map to so many cells a side before its dense layer: None keeps the authors' 50 x 50 cells, whose dense layer alone
    holds 41 million weights; a small grid also makes that layer independent of `size`.
    """

    def __init__(self, size: int = 400, bits: int = 100, locator_grid: int | None = None):
        super().__init__()
        check_size(size)
        self.locator_grid = locator_grid
        self.locator = nn.Sequential(Conv(3, 32, stride=2), nn.ReLU(), Conv(32, 64, stride=2), nn.ReLU(), Conv(64, 128, stride=2), nn.ReLU())
        self.locator_hidden = nn.Linear(128 * (locator_grid or size // 8) ** 2, 128)
        self.theta = nn.Linear(128, 6)
        plan = ((3, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 2), (64, 128, 2), (128, 128, 2))
        self.reader = nn.Sequential()
        for in_chs, out_chs, stride in plan:
            self.reader.extend([Conv(in_chs, out_chs, stride=stride), nn.ReLU()])
        self.hidden = nn.Linear(128 * (-(-size // 32)) ** 2, 512)
        self.bits = nn.Linear(512, bits)
        nn.init.zeros_(self.theta.weight)
        with torch.no_grad():
            self.theta.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def locate(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> theta (B, 6), the affine map that `spatial_transform` applies."""
        x = self.locator(image - 0.5)  # (B, 128, 50, 50)
        if self.locator_grid:
            x = F.adaptive_avg_pool2d(x, self.locator_grid)
        return self.theta(F.relu(self.locator_hidden(x.flatten(1))))

    def read(self, x: Tensor) -> Tensor:
        """The transformed, shifted picture (B, 3, S, S) -> logits (B, bits)."""
        x = self.reader(x)  # (B, 128, 13, 13)
        return self.bits(F.relu(self.hidden(x.flatten(1))))

    def forward(self, image: Tensor) -> Tensor:
        """`image` (B, 3, S, S) RGB in [0, 1] -> logits (B, bits); a bit is 1 where its logit is positive."""
        return self.read(spatial_transform(image - 0.5, self.locate(image)))


class Critic(nn.Module):
    """The Wasserstein critic, low for pictures that it takes for plain ones."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential()
        for in_chs, out_chs in ((3, 8), (8, 16), (16, 32), (32, 64)):
            self.layers.extend([Conv(in_chs, out_chs, stride=2), nn.ReLU()])
        self.layers.append(Conv(64, 1))

    def heatmap(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) RGB in [0, 1] -> (B, 1, ceil(S / 16), ceil(S / 16))."""
        return self.layers(image - 0.5)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) RGB in [0, 1] -> one score for the batch, as the authors average it."""
        return self.heatmap(image).mean()


class StegaStamp(nn.Module):
    """Encoder and decoder of one size, and a detector that comes with them or not: what is saved, published and used.

    The defaults are the authors' network.
    """

    def __init__(self, size: int = 400, bits: int = 100, locator_grid: int | None = None, detector: bool = False):
        super().__init__()
        self.size, self.n_bits, self.locator_grid = size, bits, locator_grid
        self.encoder = Encoder(size, bits)
        self.decoder = Decoder(size, bits, locator_grid)
        self.detector = Detector() if detector else None

    @property
    def config(self) -> dict:
        """The keyword arguments that make this network again."""
        return {"size": self.size, "bits": self.n_bits, "locator_grid": self.locator_grid, "detector": self.detector is not None}

    def forward(self, image: Tensor, secret: Tensor) -> tuple[Tensor, Tensor]:
        """Picture and secret -> residual (B, 3, S, S) and the logits (B, bits) read from the untouched stamped picture in [0, 1]."""
        residual = self.encoder(image, secret)
        return residual, self.decoder((image + residual).clamp(0, 1))


def he_init(module: nn.Module) -> nn.Module:
    """He-normal kernels and zero biases everywhere but in the spatial transformer's last layer.

    The authors start the encoder so and the decoder with Keras' default; with nine ReLU layers in a row the decoder then hears nothing for a
    long time, so that ours starts like the encoder.
    """
    for name, m in module.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear) and name.rsplit(".", 1)[-1] != "theta":
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)
    return module


def resized(net: StegaStamp, size: int) -> StegaStamp:
    """The same network for pictures of another size.

    Convolutions are kept. The secret's map is stretched over the new grid; the decoder's dense layers see the new grid averaged down (or stretched) to the
    old one, so that they answer as before where the maps look as before.
    """
    new = StegaStamp(size, net.n_bits, net.locator_grid)
    state = net.state_dict()
    for name in ("encoder.secret.weight", "encoder.secret.bias"):
        maps = state[name].reshape(3, net.encoder.grid, net.encoder.grid, -1).permute(3, 0, 1, 2)
        maps = F.interpolate(maps, size=(new.encoder.grid,) * 2, mode="bilinear", align_corners=False)
        state[name] = maps.permute(1, 2, 3, 0).reshape(new.state_dict()[name].shape)
    state["decoder.hidden.weight"] = _regrid(state["decoder.hidden.weight"], -(-net.size // 32), -(-size // 32))
    if not net.locator_grid:
        state["decoder.locator_hidden.weight"] = _regrid(state["decoder.locator_hidden.weight"], net.size // 8, size // 8)
    new.load_state_dict(state)
    return new.to(next(net.parameters()).device)


def _regrid(weight: Tensor, old: int, new: int, chs: int = 128) -> Tensor:
    """Dense weights (out, chs * old * old) -> (out, chs * new * new): what the old layer makes of maps that are brought from new x new to old x old."""
    cells = torch.eye(new**2, device=weight.device).view(-1, 1, new, new)
    bring = F.interpolate(cells, size=(old, old), mode="bilinear", antialias=True, align_corners=False).flatten(1)  # (new * new, old * old)
    return (weight.view(len(weight), chs, old**2) @ bring.T).flatten(1)
