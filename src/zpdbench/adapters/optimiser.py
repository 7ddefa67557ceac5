"""AdamW and the learning-rate schedule, on one flat parameter vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at 0-based `step`: linear warm-up, then linear decay to 0.

    As transformers' `get_linear_schedule_with_warmup` with ceil(warmup * steps) warm-up steps.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return step / max(1, rising)
    return max(0.0, (steps - step) / max(1, steps - rising))


class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter 2019), betas 0.9 and 0.999, eps 1e-8.

    The parameters become views of one flat vector, and so do their gradients: a step is a handful
    of operations however many tensors there are, and torch.optim (which pulls in the compiler, a
    second and a half) is not needed.
    """

    def __init__(
        self, parameters: list[nn.Parameter], weight_decay: float, max_grad_norm: float
    ) -> None:
        self.weight_decay, self.max_grad_norm = weight_decay, max_grad_norm
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
        """Clip, update, clear the gradients; returns the gradient's norm before clipping."""
        norm = float(torch.linalg.vector_norm(self.gradients))
        if not math.isfinite(norm):
            return norm
        gradients = self.gradients
        gradients.mul_(min(1.0, self.max_grad_norm / (norm + 1e-6)))
        self.step_count += 1
        if self.weight_decay:
            self.values.mul_(1.0 - learning_rate * self.weight_decay)
        self.first.lerp_(gradients, 0.1)
        self.second.mul_(0.999).addcmul_(gradients, gradients, value=0.001)
        correction = math.sqrt(1.0 - 0.999**self.step_count)
        denominator = (self.second.sqrt() / correction).add_(1e-8)
        size = learning_rate / (1.0 - 0.9**self.step_count)
        self.values.addcdiv_(self.first, denominator, value=-size)
        gradients.zero_()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Parameters and moments."""
        return {"values": self.values, "first": self.first, "second": self.second}

    def restore(self, state: dict[str, Tensor], step_count: int) -> None:
        """Take back what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])
        self.step_count = step_count
