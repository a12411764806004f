"""Play Procgen with an exported policy; needs onnxruntime, numpy and procgen, but neither PyTorch nor gsprune."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from procgen import ProcgenGym3Env

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("policy", type=Path, help="as runs/NAME/export/policy.onnx, with policy.onnx.json beside it")
path = parser.parse_args().policy
file = path.with_name(f"{path.name}.json")
file.is_file() or parser.error(f"there is no {file}; write policy and contract by: gsprune export RUN")
contract = json.loads(file.read_text())
session, training = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), contract["training"]
env = ProcgenGym3Env(num=1, env_name=training["game"], distribution_mode=training["distribution_mode"], rand_seed=0)
random = np.random.default_rng(0)
returns = [0.0]
while len(returns) <= 10:
    frame = np.ascontiguousarray(env.observe()[1]["rgb"].transpose(0, 3, 1, 2))
    scores = session.run(None, {contract["inputs"][0]["name"]: frame})[0]
    if contract["action"]["choose"] != "argmax":  # argmax of logits plus Gumbel noise is a sample of their softmax
        scores = scores + random.gumbel(size=scores.shape)
    env.act(scores.argmax(axis=1).astype(np.int32))
    reward, _, is_first = env.observe()
    returns[-1] += float(reward[0])
    returns += [0.0] * bool(is_first[0])
print(f"10 episodes of {training['game']}, mean return {np.mean(returns[:10]):.2f}")
