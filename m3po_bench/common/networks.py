"""Feed-forward networks, stacked so that an ensemble costs one batched matrix product a layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` of each network; without a gradient, the bias is added in place.

    ``baddbmm`` first writes the bias into every row of its output: a pass over fresh memory, which
    made meta-rollouts a tenth slower. Under autograd it stays, as it is one step of the graph.
    """
    if torch.is_grad_enabled():
        return torch.baddbmm(bias, x, weight)
    return torch.bmm(x, weight).add_(bias)


class StackedLinear(nn.Module):
    """``n`` independent linear layers, applied by one batched product.

    Initialised as ``torch.nn.Linear`` is: uniform in +-1/sqrt(fan in).
    """

    def __init__(self, n: int, in_features: int, out_features: int) -> None:
        super().__init__()
        # Registered before they are filled, as torch's own: a limit on parameters comes in time.
        self.weight = nn.Parameter(torch.empty(n, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(n, 1, out_features))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(in_features**-0.5), in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, batch, in_features) to (n, batch, out_features)."""
        return linear(x, self.weight, self.bias)


def silu_(x: Tensor) -> Tensor:
    """SiLU, overwriting ``x`` unless a gradient needs it.

    Large fresh tensors cost more in page faults than in arithmetic, and planners and meta-rollouts
    pass through here all the time. The gradient of ReLU needs only its output: ``F.relu_`` will do.
    """
    return F.silu(x, inplace=not x.requires_grad)


class StackedMLP(nn.Module):
    """``n`` independent multi-layer perceptrons.

    Args:
        n: Number of networks.
        in_features: Input width.
        hidden: Width of each hidden layer.
        out_features: Output width.
        activation: ``relu`` or ``silu`` (which MBPO calls swish).
        layer_norm: Normalise each hidden layer's pre-activations; without learnt scale, which
            the next layer can absorb.
    """

    def __init__(
        self,
        n: int,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: str = "relu",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n = n
        widths = [in_features, *hidden, out_features]
        self.layers = nn.ModuleList(StackedLinear(n, a, b) for a, b in pairwise(widths))
        self._activation = {"relu": F.relu_, "silu": silu_}[activation]
        self._layer_norm = layer_norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, batch, in) or, the same input for all, (batch, in) to (n, batch, out)."""
        if x.dim() == 2:
            x = x.expand(self.n, *x.shape)
        own = [cast(Tensor, p) for layer in self.layers for p in (layer.weight, layer.bias)]
        return self.run(own, x)

    def run(self, parameters: Sequence[Tensor], x: Tensor) -> Tensor:
        """The same layers with other parameters, such as adapted ones of m networks.

        Args:
            parameters: As ``self.parameters()`` gives them: a weight of shape (m, in, out) and a
                bias of shape (m, 1, out) for each layer.
            x: Shape (m, batch, in).

        Returns:
            Shape (m, batch, out).
        """
        last = len(parameters) - 2
        for i in range(0, len(parameters), 2):
            weight, bias = parameters[i], parameters[i + 1]
            if weight.shape[-1] == 1:  # a matrix of one column: twice as fast without the product
                x = (x * weight.mT).sum(-1, keepdim=True) + bias
            else:
                x = linear(x, weight, bias)
            if i < last:
                if self._layer_norm:
                    x = F.layer_norm(x, x.shape[-1:])
                x = self._activation(x)
        return x


def mlp(in_features: int, hidden: Sequence[int], out_features: int) -> nn.Sequential:
    """A plain ReLU network."""
    layers: list[nn.Module] = []
    width = in_features
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(inplace=True)]  # its gradient needs the output
        width = size
    return nn.Sequential(*layers, nn.Linear(width, out_features))


class Normalizer(nn.Module):
    """Standardises features with the mean and deviation of the data it was last shown."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, data: Tensor, smallest: float = 1e-6) -> None:
        """Take mean and deviation of rows of ``data``, the latter no smaller than ``smallest``."""
        self.mean.copy_(data.mean(0))
        self.std.copy_(data.std(0, correction=0).clamp(min=smallest))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise; what is off by over ten deviations is cut there.

        A column that has hardly moved so far has a tiny deviation; it must not shout once it does.
        """
        return ((x - self.mean) / self.std).clamp(-10.0, 10.0)

    def inverse(self, x: Tensor) -> Tensor:
        """Undo the standardisation."""
        return x * self.std + self.mean
