"""AdamW and the learning-rate schedule, on one flat parameter vector or on a process's shards."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zpdbench.adapters.parallel import Group

_AT_ONCE = 1 << 27
"""Values that are updated together: all weights of a model would need as much memory again."""
_SUMMED_AT_ONCE = 1 << 20
"""Values whose squares are summed together; as many in float64 are held meanwhile."""


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at 0-based `step`: linear warm-up, then linear decay to 0.

    As transformers' `get_linear_schedule_with_warmup` with ceil(warmup * steps) warm-up steps.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return step / max(1, rising)
    return max(0.0, (steps - step) / max(1, steps - rising))


class Optimiser(Protocol):
    """What the loop needs of an optimiser."""

    def step(self, learning_rate: float) -> float:
        """Sum the processes' gradients, clip, update, clear; the gradient's norm before clipping.

        Where the norm is not finite, nothing is updated.
        """

    def state(self) -> dict[str, Tensor]:
        """Parameters and moments; of a sharded model this process's part."""

    def restore(self, state: dict[str, Tensor], step_count: int) -> None:
        """Take back what `state` gave."""


class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter 2019), betas 0.9 and 0.999, eps 1e-8.

    The parameters become views of one flat vector, and so do their gradients: a step is a handful
    of operations however many tensors there are, several processes sum one vector, and torch.optim
    (which pulls in the compiler, a second and a half) is not needed.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        weight_decay: float,
        max_grad_norm: float,
        group: Group | None = None,
    ) -> None:
        self.weight_decay, self.max_grad_norm = weight_decay, max_grad_norm
        self.group = group or Group()
        size = sum(p.numel() for p in parameters)
        device = parameters[0].device
        self.values = torch.empty(size, device=device)
        self.gradients = torch.zeros(size, device=device)
        self.first = torch.zeros(size, device=device)
        self.second = torch.zeros(size, device=device)
        self.step_count = 0
        start = 0
        for parameter in parameters:
            part = slice(start, start + parameter.numel())
            self.values[part] = parameter.detach().reshape(-1)
            parameter.data = self.values[part].view(parameter.shape)
            parameter.grad = self.gradients[part].view(parameter.shape)
            start = part.stop

    def step(self, learning_rate: float) -> float:
        """See `Optimiser.step`."""
        self.group.sum(self.gradients)
        norm = _norm(_squares(self.gradients))
        if not math.isfinite(norm):
            return norm
        gradients = self.gradients
        gradients.mul_(min(1.0, self.max_grad_norm / (norm + 1e-6)))
        self.step_count += 1
        for start in range(0, len(gradients), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            _update(
                self.values[part],
                gradients[part],
                self.first[part],
                self.second[part],
                learning_rate,
                self.weight_decay,
                self.step_count,
            )
        gradients.zero_()
        return norm

    def state(self) -> dict[str, Tensor]:
        """See `Optimiser.state`."""
        return {"values": self.values, "first": self.first, "second": self.second}

    def restore(self, state: dict[str, Tensor], step_count: int) -> None:
        """See `Optimiser.restore`."""
        for name, value in self.state().items():
            value.copy_(state[name])
        self.step_count = step_count


class ShardedAdamW:
    """The same arithmetic on a model that FSDP has cut up: each process updates its own part.

    FSDP has summed the gradients over the processes; only their norm is still to be put together.
    """

    def __init__(
        self, parameters: list[Any], weight_decay: float, max_grad_norm: float, group: Group
    ) -> None:
        """
        Args:
            parameters: DTensors, sharded along their first dimension.
        """
        self.parameters, self.group = parameters, group
        self.weight_decay, self.max_grad_norm = weight_decay, max_grad_norm
        self.values: list[Tensor] = [p.to_local().detach() for p in parameters]
        self.first = [torch.zeros_like(v) for v in self.values]
        self.second = [torch.zeros_like(v) for v in self.values]
        self.step_count = 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        """See `Optimiser.step`."""
        gradients = [p.grad.to_local() for p in self.parameters]
        squares = torch.stack([_squares(gradient.reshape(-1)) for gradient in gradients]).sum(0)
        self.group.sum(squares)
        norm = _norm(squares)
        if math.isfinite(norm):
            self.step_count += 1
            factor = min(1.0, self.max_grad_norm / (norm + 1e-6))
            for value, gradient, first, second in zip(
                self.values, gradients, self.first, self.second, strict=True
            ):
                _update(
                    value,
                    gradient.mul_(factor),
                    first,
                    second,
                    learning_rate,
                    self.weight_decay,
                    self.step_count,
                )
        for parameter in self.parameters:
            parameter.grad = None
        return norm

    def state(self) -> dict[str, Tensor]:
        """See `Optimiser.state`."""
        kinds = {"values": self.values, "first": self.first, "second": self.second}
        return {f"{kind}.{i}": t for kind, found in kinds.items() for i, t in enumerate(found)}

    def restore(self, state: dict[str, Tensor], step_count: int) -> None:
        """See `Optimiser.restore`."""
        for name, value in self.state().items():
            value.copy_(state[name])
        self.step_count = step_count


def _squares(values: Tensor) -> Tensor:
    """Sum of squares of a vector, shape (1,), in float64.

    In float32 a CPU adds into few sums: they lose 1.4 % over 135 million values.
    """
    # Metal has no float64.
    values = values.cpu() if values.device.type == "mps" else values
    total = torch.zeros(1, dtype=torch.float64, device=values.device)
    for part in values.split(_SUMMED_AT_ONCE):
        total += torch.linalg.vector_norm(part, dtype=torch.float64) ** 2
    return total


def _norm(squares: Tensor) -> float:
    """The root, rounded to float32: so the order of the sums, which is the machine's, is gone."""
    return float(squares.sqrt().float())


def _update(
    values: Tensor,
    gradients: Tensor,
    first: Tensor,
    second: Tensor,
    learning_rate: float,
    weight_decay: float,
    count: int,
) -> None:
    """One AdamW update in place, the gradients clipped already; `count` is 1 at the first."""
    if weight_decay:
        values.mul_(1.0 - learning_rate * weight_decay)
    first.lerp_(gradients, 0.1)
    second.mul_(0.999).addcmul_(gradients, gradients, value=0.001)
    correction = math.sqrt(1.0 - 0.999**count)
    denominator = (second.sqrt() / correction).add_(1e-8)
    size = learning_rate / (1.0 - 0.9**count)
    values.addcdiv_(first, denominator, value=-size)
