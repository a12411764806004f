"""Play with an exported policy; needs onnxruntime, numpy and the game's package, but neither PyTorch nor gsprune."""

import argparse
import importlib
import json
import operator
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def procgen(env_name, distribution_mode):
    """Yield frames; take an action for each, and yield the reward and whether the episode is over."""
    from procgen import ProcgenGym3Env

    env = ProcgenGym3Env(num=1, env_name=env_name, distribution_mode=distribution_mode, rand_seed=0)
    while True:
        action = yield env.observe()[1]["rgb"][0].transpose(2, 0, 1)
        env.act(np.array([action], np.int32))
        reward, _, is_first = env.observe()
        yield float(reward[0]), bool(is_first[0])


def single(env):
    """The same for an environment of gymnasium."""
    frame = env.reset(seed=0)[0]
    while True:
        action = yield frame
        frame, reward, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        frame = env.reset()[0] if ended else frame
        yield float(reward), ended


def atari(game, **options):
    """An Atari game, whole and with its own rewards."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv(game, 1, reward_clipping=False, autoreset_mode="SameStep", **options)
    frame = env.reset(seed=0)[0]
    while True:
        action = yield frame[0]
        frame, reward, terminated, truncated, _ = env.step(np.array([action]))
        yield float(reward[0]), bool(terminated[0] or truncated[0])


def image(id, arguments, key, size, grey, stack):
    """An environment of gymnasium by its id, or by the factory module:name, with images (C, H, W)."""
    import gymnasium
    from gymnasium import wrappers

    module, _, name = id.partition(":")
    module = importlib.import_module(module) if name else None
    is_own = hasattr(module, name.partition(".")[0])
    env = operator.attrgetter(name)(module)(**arguments) if is_own else gymnasium.make(id, **arguments)
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        space = env.observation_space[key]
        env = wrappers.TransformObservation(env, lambda observation: observation[key], space)
    shape = env.observation_space.shape
    if len(shape) == 3 and shape[2] not in (1, 3, 4):
        last = gymnasium.spaces.Box(0, 255, (*shape[1:], shape[0]), np.uint8)
        env = wrappers.TransformObservation(env, lambda planes: np.moveaxis(planes, 0, -1), last)
    env = wrappers.ResizeObservation(env, (size, size)) if size else env
    env = wrappers.GrayscaleObservation(env) if grey and env.observation_space.shape[-1] == 3 else env
    env = wrappers.FrameStackObservation(env, stack)
    stacked = env.observation_space
    chosen = (0, 3, 1, 2) if len(stacked.shape) == 4 else (0, 1, 2)
    rows, columns = np.array(stacked.shape)[list(chosen)][-2:]
    box = gymnasium.spaces.Box(0, 255, (stacked.low.size // (rows * columns), rows, columns), np.uint8)
    return single(wrappers.TransformObservation(env, lambda x: x.transpose(chosen).reshape(-1, rows, columns), box))


def choose(action, outputs, random):
    """An action from the network's outputs, as the contract says."""
    if action["space"] == "box":
        bounds = [[np.nan if bound is None else bound for bound in action[name]] for name in ("low", "high")]
        clipped = np.fmin(np.fmax(outputs, bounds[0]), bounds[1])
        return clipped.reshape(action["shape"]).astype(action["dtype"])
    if action["choose"] != "argmax":  # argmax of logits plus Gumbel noise is a sample of their softmax
        outputs = outputs + random.gumbel(size=outputs.shape)
    parts = np.split(outputs, np.cumsum(action["sizes"])[:-1])
    chosen = np.array([part.argmax() for part in parts])
    return chosen if action["space"] == "multi-discrete" else chosen[0]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("policy", type=Path, help="as runs/NAME/export/policy.onnx, with policy.onnx.json beside it")
parser.add_argument("--episodes", type=int, default=10)
args = parser.parse_args()
file = args.policy.with_name(f"{args.policy.name}.json")
file.is_file() or parser.error(f"there is no {file}; write policy and contract by: gsprune export RUN")
contract = json.loads(file.read_text())
session = onnxruntime.InferenceSession(args.policy, providers=["CPUExecutionProvider"])
sys.path.append(str(Path.cwd()))  # for modules with environments of your own
options = dict(contract["environment"])
game = {"procgen": procgen, "ale-py": atari, "gymnasium": image}[options.pop("package")](**options)
random, returns, name = np.random.default_rng(0), [0.0], contract["inputs"][0]["name"]
while len(returns) <= args.episodes:
    frame = np.ascontiguousarray(next(game))[None]
    reward, ended = game.send(choose(contract["action"], session.run(None, {name: frame})[0][0], random))
    returns[-1] += reward
    returns += [0.0] * ended
played = f"{args.episodes} episodes of {contract['training']['game']}"
print(f"{played}, mean return {np.mean(returns[: args.episodes]):.2f}")
