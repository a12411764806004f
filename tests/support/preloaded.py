"""Imported by the server that forks the ranks: the work that would take every rank seconds is done here once."""

from __future__ import annotations

import importlib

from gsprune.rl.envs.procgen import EnvConfig, ProcgenVectorEnv

# An optimizer imports torch._dynamo.
for _name in (
    "torch._dynamo",
    "torch.utils.tensorboard",
    "gsprune.rl.algorithms.ppo.trainer",
    "gsprune.rl.algorithms.dqn.trainer",
):
    importlib.import_module(_name)

# The first environment of a process loads all pictures of Procgen.
ProcgenVectorEnv(EnvConfig("bigfish", 1), num_threads=0).close()
