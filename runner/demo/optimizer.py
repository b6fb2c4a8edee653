"""Muon for the layers' matrices, AdamW for everything else, and an average of the weights."""

import torch

# Keller Jordan's quintic: after five rounds the singular values lie between about 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """[n, rows, columns] to the nearest orthogonal matrices, roughly, in BF16."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    def __init__(self, parameters, rate: float, decay: float, momentum: float = 0.95):
        self.rate, self.decay, self.momentum = rate, decay, momentum
        self.groups = {}
        for p in parameters:
            self.groups.setdefault(tuple(p.shape[-2:]), []).append(p)
        self.state = {shape: [torch.zeros_like(p) for p in group] for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, scale: float):
        rate = self.rate * scale
        for shape, group in self.groups.items():
            gradients = [p.grad for p in group]
            torch._foreach_lerp_(self.state[shape], gradients, 1 - self.momentum)
            nesterov = torch._foreach_lerp(gradients, self.state[shape], self.momentum)
            stacked = torch.cat([g.reshape(-1, *shape) for g in nesterov])
            updates = orthogonalize(stacked) * max(1.0, shape[0] / shape[1]) ** 0.5
            pieces = updates.split([g.numel() // (shape[0] * shape[1]) for g in nesterov])
            torch._foreach_mul_(group, 1 - rate * self.decay)
            torch._foreach_add_(group, [u.reshape(p.shape) for u, p in zip(pieces, group)], alpha=-rate)


class Optimizer:
    """`rate` and `decay` are Muon's; AdamW has its own."""

    def __init__(self, model, rate, decay, adam_rate, adam_decay, average: float):
        matrices = list(model.matrices())
        known = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if id(p) not in known]
        self.muon = Muon(matrices, rate, decay)
        groups = [
            {"params": [p for p in rest if p.ndim >= 2 and p.shape[0] > 64], "weight_decay": adam_decay},
            {"params": [p for p in rest if not (p.ndim >= 2 and p.shape[0] > 64)], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=adam_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.adam_rate, self.all = adam_rate, list(model.parameters())
        self.average, self.steps = average, 0
        self.averages = [p.detach().clone() for p in self.all]

    def step(self, scale: float):
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        self.muon.step(scale)
        self.adam.zero_grad(set_to_none=True)
        for p in self.all:
            p.grad = None
        self.steps += 1
        with torch.no_grad():
            weight = max(1 - self.average, 1 / (self.steps + 1))
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.all], weight)

    def averaged(self):
        """A context in which the model's weights are their averages."""
        return _Swapped(self.all, self.averages)


class _Swapped:
    def __init__(self, parameters, values):
        self.parameters, self.values = parameters, values

    def __enter__(self):
        self.saved = [p.data for p in self.parameters]
        for p, value in zip(self.parameters, self.values):
            p.data = value

    def __exit__(self, *_):
        for p, value in zip(self.parameters, self.saved):
            p.data = value
