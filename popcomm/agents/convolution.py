"""Pictures into features: convolutions for P members at once, and what networks stand on where they see pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.contract import AgentSpec
from popcomm.agents.population import PopulationLinear, orthogonal_, orthogonal_layer_, uniform
from popcomm.envs.sight import Picture
from popcomm.errors import UserError, unknown

ENCODERS = ("cnn", "flat")
CHANNELS = (16, 32)  # of the first layer, and of all others
LARGE = 48  # pixels on a side: from here on a layer takes steps of four
END = 8  # pixels on a side that are left to the linear layer, at most


class PopulationConv2d(nn.Module):
    """`torch.nn.Conv2d` for P members. x [P, R, in, height, width] -> [P, R, out, height', width'].

    `weight` is [P, out, in, kernel, kernel], `bias` [P, out]; the distribution of their start is that of
    torch.nn.Conv2d. All members are one grouped convolution.
    """

    def __init__(
        self,
        members: int,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        bound = 1 / math.sqrt(in_channels * kernel**2)
        self.weight = uniform(bound, members, out_channels, in_channels, kernel, kernel, generator=generator)
        self.bias = uniform(bound, members, out_channels, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        members = self.weight.size(0)
        # Members are groups of channels, and rows the batch.
        grouped = x.squeeze(0) if members == 1 else x.transpose(0, 1).flatten(1, 2)
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        found = F.conv2d(grouped, weight, bias, self.stride, self.padding, groups=members)
        return found.unsqueeze(0) if members == 1 else found.unflatten(1, (members, -1)).transpose(0, 1)


class PictureEncoder(nn.Module):
    """A small network for one picture: planes [P, R, channels, height, width] in [0, 1] -> [P, R, features].

    Convolutions with ReLU make the picture half as large each, and a quarter while it has 48 pixels on a side, until 8
    are left; a linear layer with tanh follows. 16 channels in the first layer, 32 in the others; orthogonal start.
    A picture of 84 x 84 becomes 21 x 21, 10 x 10, 5 x 5.

    Args:
        members: P.
        picture: its size.
        features: how many.
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(self, members: int, picture: Picture, features: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        channels, height, width = picture.size
        self.layers = nn.ModuleList()
        while not self.layers or max(height, width) > END:
            kernel, stride = (8, 4) if min(height, width) >= LARGE else (4, 2) if min(height, width) >= 4 else (3, 1)
            if stride == 1 and self.layers:
                break
            padding = (kernel - stride) // 2
            out = CHANNELS[min(len(self.layers), 1)]
            layer = PopulationConv2d(members, channels, out, kernel, stride, padding, generator)
            start_conv_(layer, generator)
            self.layers.append(layer)
            channels = out
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        self.out = PopulationLinear(members, channels * height * width, features, generator=generator)
        orthogonal_layer_(self.out, 1.0, generator)

    def forward(self, planes: Tensor) -> Tensor:
        for layer in self.layers:
            planes = layer(planes).relu()
        return tanh(self.out(planes.flatten(2)))


class Eye(nn.Module):
    """What a network stands on where it sees pictures: their features, and the numbers beside them as they are.

    obs [P, R, O], scaled -> [P, R, size].
    """

    def __init__(self, spec: AgentSpec, features: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        assert spec.sight is not None
        self.sight = spec.sight
        self.encoders = nn.ModuleList(
            PictureEncoder(spec.members, picture, features, generator) for picture in self.sight.pictures
        )
        self.size = features * len(self.encoders) + self.sight.others_size

    def forward(self, obs: Tensor) -> Tensor:
        pictures = zip(self.sight.pictures, self.encoders, strict=True)
        return torch.cat([*(encoder(picture.planes(obs)) for picture, encoder in pictures), self.sight.beside(obs)], -1)


def make_eye(
    spec: AgentSpec, encoder: str | None, features: int, generator: torch.Generator | None = None
) -> Eye | None:
    """The eye of a network; None where it stands on the numbers as they come.

    Args:
        spec: its place, which says whether there are pictures.
        encoder: "cnn", "flat", or None: "cnn" where there are pictures.
        features: of each picture.
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: another encoder, or a cnn where there is no picture.
    """
    if encoder is not None and encoder not in ENCODERS:
        raise unknown("agent_config.encoder", encoder, ENCODERS)
    if encoder == "cnn" and spec.sight is None:
        raise UserError(
            f"agent_config.encoder is 'cnn', and there is no picture in the observation {spec.observation_space}: a "
            "picture is a Box of uint8 with two or three axes; use 'flat'"
        )
    return None if spec.sight is None or encoder == "flat" else Eye(spec, features, generator)


def start_conv_(layer: Any, generator: torch.Generator | None = None) -> None:
    """Orthogonal weights of gain sqrt(2), for ReLU, and zero biases of a PopulationConv2d."""
    members, out = layer.weight.shape[:2]
    flat = orthogonal_(layer.weight.data.new_empty(members, layer.weight[0, 0].numel(), out), math.sqrt(2), generator)
    with torch.no_grad():
        layer.weight.copy_(flat.transpose(1, 2).reshape(layer.weight.shape))
        layer.bias.zero_()
