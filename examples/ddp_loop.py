"""Data-parallel training of a network that shrinks: `torchrun --nproc-per-node 2 examples/ddp_loop.py`.

On GPUs: one per rank, "nccl" for "gloo", and model and batches on `cuda:LOCAL_RANK`.
"""

import torch
import torch.distributed.nn  # imported later (optimizers do), its default arguments would hold the group for ever
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import gsprune


def main() -> None:
    """Train; the group of processes exists."""
    rank = distributed.get_rank()
    torch.manual_seed(rank)  # every rank its own batches; DDP gives all ranks the weights of the first
    model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    wrapped = DistributedDataParallel(model)
    pruner = gsprune.Pruner(
        model,
        gsprune.schedules.Cubic(final=0.8),
        optimizer=optimizer,
        importance="taylor",
        process_group=distributed.group.WORLD,
    )

    steps = 400
    for step in range(steps):
        x = torch.randn(64, 16)
        loss = (wrapped(x).squeeze(1) - x.square().sum(1).sqrt()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 20 == 0:
            report = pruner.step((step + 1) / steps)
            if report.changed:
                wrapped = DistributedDataParallel(model)  # its buckets and hooks are of the old shapes
            if rank == 0 and (step + 1) % 80 == 0:
                print(f"step {step + 1:3}  loss {loss.item():.4f}  widths {[group.after for group in report.groups]}")


distributed.init_process_group("gloo")
main()  # in a function, so that nothing holds the group after it: its threads must not meet the end of the interpreter
distributed.destroy_process_group()
