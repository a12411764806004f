"""Environments of other people: what a trainer cannot use is refused with the way out, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from own_provider import OwnProvider

import gsprune.rl
from gsprune.errors import EnvironmentFailedError
from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.envs import registry
from gsprune.rl.envs.episodes import EpisodeSums
from gsprune.rl.envs.gymnasium import GymnasiumProvider
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.objects import object_name

SPACE = Box(0, 255, (3, 36, 36), np.uint8)
BLACK = np.zeros(SPACE.shape, np.uint8)


RIGHT = (BLACK, 0.0, False, False, {})


class Picture(gymnasium.Env[Any, Any]):
    """A plain picture; its two results can be replaced by wrong ones, that of a step from number `since` on."""

    observation_space = SPACE
    action_space = Discrete(3)

    def __init__(self, first: Any = (BLACK, {}), then: Any = (BLACK, 0.0, False, True, {}), since: int = 1) -> None:
        self.first, self.then, self.since = first, then, since
        self.steps = 0

    def reset(self, **_: Any) -> Any:
        if isinstance(self.first, Exception):
            raise self.first
        self.steps = 0
        return self.first

    def step(self, action: Any) -> Any:
        del action
        self.steps += 1
        if self.steps < self.since:
            return RIGHT
        if isinstance(self.then, Exception):
            raise self.then
        return self.then


class SimulatorError(RuntimeError):
    """An exception that cannot be made of its text alone, as gymnasium does with those of its processes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")


FLOATS = np.full(SPACE.shape, 0.5, np.float32)
TINY = PPOConfig(
    env_id="pictures", encoder="nature", width=1, num_envs=2, num_steps=4, num_minibatches=2, total_timesteps=16,
    torch_threads=1, eval_episodes=0, eval_interval_episodes=0, eval_num_envs=64,
)  # fmt: skip


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ({"first": FLOATS}, TypeError, r"`reset` of .* must return \(observation, info\).*got ndarray; .*shimmy"),
        ({"first": (FLOATS, {})}, ValueError, r"`reset` of .*observation_space.*got float32 \(3, 36, 36\) from 0.5 to"),
        ({"first": (np.zeros((36, 36, 3), np.uint8), {})}, ValueError, r"got uint8 \(36, 36, 3\) from 0 to 0"),
        ({"first": (None, {})}, ValueError, "got NoneType"),
        ({"then": (BLACK, 0.0, True, {})}, TypeError, r"`step` of .*got a tuple of 4"),
        (
            {"first": KeyError("level")},
            EnvironmentFailedError,
            r"`reset` of .* raised KeyError: 'level' \(.*, in reset\)",
        ),
    ],
)
def test_a_wrong_first_result_is_named(results: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GymnasiumProvider().describe(EnvironmentRequest(object_name(lambda: Picture(**results))))


@pytest.mark.parametrize(
    ("then", "error", "message"),
    [
        ((FLOATS, 0.0, True, {}), TypeError, r"`step` of .*terminated, truncated, info\).*got a tuple of 4"),
        ((FLOATS, 0.0, False, False, {}), ValueError, r"`step` of .*observation_space.*got float32"),
        ((BLACK[:1], 0.0, False, False, {}), ValueError, r"`step` of .*observation_space.*got uint8 \(1, 36, 36\)"),
        ((BLACK, None, False, False, {}), TypeError, "`step` of .* must return a number as reward, got None"),
        ((BLACK, np.zeros(2), False, False, {}), TypeError, r"a number as reward, got array\(\[0., 0.\]\)"),
        ((BLACK, float("nan"), False, False, {}), ValueError, "must return a finite reward, got nan"),
        (
            SimulatorError(3, "crashed"), EnvironmentFailedError,
            r"`step` of .* raised SimulatorError: crashed \(3\) \(.*test_checked.py, line \d+, in step\)",
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")  # by which gymnasium logs errors of its processes
def test_a_wrong_step_is_named_also_where_environments_run_in_processes(
    then: Any, error: type[Exception], message: str
) -> None:
    for asynchronous in ("true", "false"):
        name = object_name(lambda: Picture(then=then, since=3))
        request = EnvironmentRequest(name, num_envs=2, options=f"asynchronous={asynchronous}")
        envs = registry.make_environments(request)
        envs.reset()
        for _ in range(2):
            envs.step(np.zeros(2, np.int64))
        with pytest.raises(error, match=message):
            envs.step(np.zeros(2, np.int64))
        envs.close()


def test_infos_and_rewards_of_any_kind_are_accepted() -> None:
    kinds = iter([3, "three", [3], {"deep": None}, np.zeros(3), object()])

    class Informed(Picture):
        def step(self, action: Any) -> Any:
            del action
            return BLACK, np.array([2], np.int32), np.True_, 0, {"kind": next(kinds), "episode": 1, "final_obs": "none"}

    envs = registry.make_environments(EnvironmentRequest(object_name(Informed), 2, options="asynchronous=false"))
    envs.reset()
    for _ in range(2):
        _, rewards, terminated, truncated, infos = envs.step(np.zeros(2, np.int64))
    assert rewards.tolist() == [2, 2]
    assert terminated.all()
    assert not truncated.any()
    assert infos["episode"]["r"].tolist() == [2, 2]


def test_an_environment_without_spaces_is_named() -> None:
    class Bare(gymnasium.Env[Any, Any]):
        observation_space = SPACE

    with pytest.raises(TypeError, match=r"`action_space` of .* must be a space of gymnasium, got None; set it in"):
        GymnasiumProvider().describe(EnvironmentRequest(object_name(Bare)))


def test_a_factory_of_a_vector_environment_is_told_about_providers() -> None:
    with pytest.raises(TypeError, match=r"must return one gymnasium.Env, got .*SyncVectorEnv.*needs a provider, see"):
        GymnasiumProvider().describe(EnvironmentRequest(object_name(lambda: SyncVectorEnv([Picture]))))


def pictures(envs: Any) -> OwnProvider:
    """A provider with a vector environment of its own."""
    return OwnProvider("pictures", (3, 36, 36), lambda request: envs)


def vector(mode: AutoresetMode = AutoresetMode.SAME_STEP, num_envs: int = 2) -> VectorEnv[Any, Any, Any]:
    return SyncVectorEnv([Picture] * num_envs, autoreset_mode=mode)


def without_mode() -> VectorEnv[Any, Any, Any]:
    envs = vector()
    envs.metadata = {}
    return envs


def with_floats() -> VectorEnv[Any, Any, Any]:
    envs = vector()
    envs.reset = lambda **_: (np.full((2, *SPACE.shape), 0.5), {})  # type: ignore[method-assign]
    return envs


def with_infinite_rewards() -> VectorEnv[Any, Any, Any]:
    class Infinite(SyncVectorEnv):
        sums = EpisodeSums(2)

        def step(self, actions: Any) -> Any:
            frames, _, terminated, truncated, _ = super().step(actions)
            return frames, terminated, terminated, truncated, self.sums.add(np.array([0, -np.inf]), terminated)

    return Infinite([Picture] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


def with_step(change: Callable[..., Any]) -> Callable[[], VectorEnv[Any, Any, Any]]:
    """Environments whose steps are changed by a function of (observations, rewards, terminated, truncated, infos)."""

    def make() -> VectorEnv[Any, Any, Any]:
        envs = vector()
        step = envs.step
        envs.step = lambda actions: change(*step(actions))  # type: ignore[method-assign]
        return envs

    return make


def failing(*result: Any) -> Any:
    raise OverflowError("the clock ran over")


def overwritten() -> VectorEnv[Any, Any, Any]:
    envs = vector()
    frames = np.zeros((2, *SPACE.shape), np.uint8)
    step = envs.step
    envs.reset = lambda **_: (frames, {})  # type: ignore[method-assign]
    envs.step = lambda actions: (frames, *step(actions)[1:])  # type: ignore[method-assign]
    return envs


def without_last_observations() -> VectorEnv[Any, Any, Any]:
    envs = vector()
    step = envs.step
    envs.step = lambda actions: (*step(actions)[:4], {})  # type: ignore[method-assign]
    return envs


@pytest.mark.parametrize(
    ("envs", "error", "message"),
    [
        (Picture, TypeError, "must make a gymnasium.vector.VectorEnv, got Picture"),
        (lambda: vector(num_envs=3), ValueError, r"as many environments as `request.num_envs`, 2, got 3"),
        (
            lambda: vector(AutoresetMode.NEXT_STEP), ValueError,
            r"must be AutoresetMode.SAME_STEP, got AutoresetMode.NEXT_STEP; .* the argument `autoreset_mode`",
        ),
        (lambda: vector(AutoresetMode.DISABLED), ValueError, "SAME_STEP, got AutoresetMode.DISABLED"),
        (without_mode, ValueError, "SAME_STEP, got None"),
        (with_floats, ValueError, r"\(2, 3, 36, 36\) of dtype uint8, as their provider.*got float64"),
        (with_infinite_rewards, ValueError, "environment 1 returned the reward -inf, which must be finite"),
        (with_step(lambda o, *rest: (o / 255, *rest)), ValueError, "of dtype uint8, .* got float64"),
        (with_step(lambda o, *rest: (o[..., :30], *rest)), ValueError, r"got uint8 \(2, 3, 36, 30\)"),
        (with_step(lambda o, *rest: (torch.from_numpy(o), *rest)), ValueError, "of dtype uint8, .* got Tensor"),
        (overwritten, ValueError, "have overwritten the observations of the step before; return a copy"),
        (with_step(lambda o, r, *ends: (o, r[:, None], *ends)), ValueError, r"`rewards` of shape \(2,\), got \(2, 1\)"),
        (with_step(lambda o, r, *ends: (o, r + np.nan, *ends)), ValueError, r"numbers as rewards, got \[nan nan\]"),
        (with_step(lambda o, r, t, *rest: (o, r, t[0], *rest)), ValueError, r"`terminated` of shape \(2,\), got \(\)"),
        (with_step(lambda *each: (*each[:4], {"episode": {}})), ValueError, "without .*EpisodeSums makes both"),
        (with_step(failing), EnvironmentFailedError, r"raised OverflowError: the clock ran over \(.*in failing\)"),
        (without_last_observations, ValueError, r"no last observation; put it into infos\['final_obs'\]\[0\]"),
    ],
)  # fmt: skip
def test_vector_environments_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, envs: Any, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(registry, "_registered", [pictures(envs())])
    with pytest.raises(error, match=message):
        gsprune.rl.train(TINY, tmp_path / "run", say=lambda line: None)


def test_a_vector_environment_that_begins_episodes_in_the_same_step_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_lists = with_step(lambda o, r, t, c, i: (o, r.tolist(), t.tolist(), c.astype(int), i))
    monkeypatch.setattr(registry, "_registered", [pictures(as_lists())])
    agent = gsprune.rl.train(TINY, tmp_path / "run", say=lambda line: None)
    assert agent.network.encoder.conv1.out_channels == 7


def test_what_is_no_provider_is_refused_when_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        name = "half"

        def accepts(self, env_id: str) -> bool:
            return env_id == "half"

    monkeypatch.setattr(registry, "_registered", [])
    with pytest.raises(TypeError, match=r"got the class Half; call it: Half\(\)"):
        registry.register_provider(Half)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"the methods ids, accepts, .* but Half has no ids"):
        registry.register_provider(Half())  # type: ignore[arg-type]
    assert registry._registered == []


def test_a_description_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = pictures(vector())
    monkeypatch.setattr(provider, "describe", lambda request: (3, 36, 36))
    monkeypatch.setattr(registry, "_registered", [provider])
    with pytest.raises(TypeError, match=r"must describe it by an EnvironmentDescription .* got \(3, 36, 36\)"):
        registry.describe(EnvironmentRequest("pictures"))
