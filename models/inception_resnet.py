"""Inception-ResNet-v1 and v2 (arXiv:1602.07261)."""

from __future__ import annotations

from torch import Tensor, nn

from models.staged import StagedNetwork, refuse_smaller
from models.units import Branches

SMALLEST_INPUT = 75


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm (epsilon 1e-3, as in the authors' released models), ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | str | tuple[int, int] = 0,
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False),
            nn.BatchNorm2d(out_channels, eps=1e-3),
            nn.ReLU(inplace=True),
        )


class InceptionResidual(nn.Module):
    """Branches joined by a linear 1x1 convolution, scaled and added to the input, then ReLU."""

    def __init__(
        self, channels: int, branches: tuple[nn.Module, ...], joined: int, scale: float, *, relu: bool = True
    ) -> None:
        super().__init__()
        self.branches = Branches(branches)
        self.project = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.activation = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.activation(x + self.scale * self.project(self.branches(x)))
        return output


def _same(in_channels: int, out_channels: int, kernel: int | tuple[int, int]) -> ConvNorm:
    return ConvNorm(in_channels, out_channels, kernel, padding="same")


def _block_a() -> InceptionResidual:
    """Inception-ResNet-A at 35x35, 256 channels (Fig. 10)."""
    branches = (
        _same(256, 32, 1),
        nn.Sequential(_same(256, 32, 1), _same(32, 32, 3)),
        nn.Sequential(_same(256, 32, 1), _same(32, 32, 3), _same(32, 32, 3)),
    )
    return InceptionResidual(256, branches, joined=96, scale=0.17)


def _block_b() -> InceptionResidual:
    """Inception-ResNet-B at 17x17, 896 channels (Fig. 11)."""
    branches = (
        _same(896, 128, 1),
        nn.Sequential(_same(896, 128, 1), _same(128, 128, (1, 7)), _same(128, 128, (7, 1))),
    )
    return InceptionResidual(896, branches, joined=256, scale=0.10)


def _block_c(scale: float = 0.20, *, relu: bool = True) -> InceptionResidual:
    """Inception-ResNet-C at 8x8, 1792 channels (Fig. 13)."""
    branches = (
        _same(1792, 192, 1),
        nn.Sequential(_same(1792, 192, 1), _same(192, 192, (1, 3)), _same(192, 192, (3, 1))),
    )
    return InceptionResidual(1792, branches, joined=384, scale=scale, relu=relu)


def _reduction_a() -> Branches:
    """256 channels at 35x35 -> 896 at 17x17 (Fig. 7, k = l = 192, m = 256, n = 384)."""
    deep = nn.Sequential(_same(256, 192, 1), _same(192, 192, 3), ConvNorm(192, 256, 3, stride=2))
    return Branches((nn.MaxPool2d(3, stride=2), ConvNorm(256, 384, 3, stride=2), deep))


def _reduction_b() -> Branches:
    """896 channels at 17x17 -> 1792 at 8x8 (Fig. 12)."""
    return Branches(
        (
            nn.MaxPool2d(3, stride=2),
            nn.Sequential(_same(896, 256, 1), ConvNorm(256, 384, 3, stride=2)),
            nn.Sequential(_same(896, 256, 1), ConvNorm(256, 256, 3, stride=2)),
            nn.Sequential(_same(896, 256, 1), _same(256, 256, 3), ConvNorm(256, 256, 3, stride=2)),
        )
    )


def inception_resnet_v1(num_classes: int, *, embedding: int) -> StagedNetwork:
    """Return Inception-ResNet-v1, which neither torchvision nor timm has.

    Stem (Fig. 14), 5 A, 10 B and 5 C blocks with a reduction after A and after B. The scales of the residuals are those
    of the authors' released v2. Dropout before the classifier belongs to training and is left out.

    Args:
        num_classes: number of classes; 0 for pooled features.
        embedding: 0 for the network of the paper; otherwise the width of a normalised linear layer before the
            classifier, which public implementations (FaceNet's and its descendants) have together with a sixth C block
            without scale and ReLU.
    """
    stem = nn.Sequential(
        ConvNorm(3, 32, 3, stride=2),
        ConvNorm(32, 32, 3),
        _same(32, 64, 3),
        nn.MaxPool2d(3, stride=2),
        ConvNorm(64, 80, 1),
        ConvNorm(80, 192, 3),
        ConvNorm(192, 256, 3, stride=2),
    )
    last, embed = [], None
    if embedding:
        last = [_block_c(scale=1.0, relu=False)]
        layers = nn.Sequential(nn.Linear(1792, embedding, bias=False), nn.BatchNorm1d(embedding, eps=1e-3))
        embed = (layers, embedding)
    stages = (
        nn.Sequential(*(_block_a() for _ in range(5))),
        nn.Sequential(_reduction_a(), *(_block_b() for _ in range(10))),
        nn.Sequential(_reduction_b(), *(_block_c() for _ in range(5)), *last),
    )
    return StagedNetwork(
        stem, stages, 1792, num_classes, preactivation=False, smallest_input=SMALLEST_INPUT, embed=embed
    )


def inception_resnet_v2(num_classes: int) -> nn.Module:
    """Return timm's Inception-ResNet-v2, which follows the released model of the authors of arXiv:1602.07261."""
    import timm

    model: nn.Module = timm.create_model("inception_resnet_v2", pretrained=False, num_classes=num_classes)
    model.register_forward_pre_hook(_check_size)
    return model


def _check_size(_model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    refuse_smaller(inputs[0], SMALLEST_INPUT)
