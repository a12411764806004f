"""A plain PyTorch loop whose network is at a fifth of its width by the end. Needs torch and gsprune alone."""

import torch
from torch import nn

import gsprune

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
pruner = gsprune.Pruner(model, gsprune.schedules.Cubic(final=0.8), optimizer=optimizer)
dense = gsprune.cost(model).params

steps = 2000
for step in range(steps):
    x = torch.randn(64, 16)
    loss = (model(x).squeeze(1) - x.square().sum(1).sqrt()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    report = pruner.step((step + 1) / steps)
    if (step + 1) % 400 == 0:
        print(f"step {step + 1:4}  loss {loss.item():.4f}  widths {[group.after for group in report.groups]}")

print(f"parameters {dense:,} -> {report.params_after:,}")
