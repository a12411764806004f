"""Environments of gymnasium: any image becomes (C, H, W), and what is no image is refused with the way out."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from gsprune.errors import EnvironmentFailedError, MissingExtraError
from gsprune.rl.envs.gymnasium import GymnasiumProvider
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import describe, provider_of
from gsprune.rl.objects import object_name
from gsprune.rl.training.truncation import truncated_episodes

PROVIDER = GymnasiumProvider()
NEEDS_ATARI = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py is not installed")


class Counter(gymnasium.Env[Any, Any]):
    """Every pixel is the number of the step; an episode has five steps and is truncated."""

    def __init__(self, space: gymnasium.Space[Any] | None = None) -> None:
        self.observation_space = space or Box(0, 255, (40, 48, 3), np.uint8)
        self.action_space = Discrete(3)
        self.count = 0

    def observe(self) -> Any:
        def filled(space: Any) -> Any:
            return np.full(space.shape, self.count, space.dtype)

        space = self.observation_space
        return {name: filled(entry) for name, entry in space.items()} if isinstance(space, Dict) else filled(space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.observe(), 2.0, False, self.count == 5, {}


def request_of(space: gymnasium.Space[Any] | None = None, options: str = "", num_envs: int = 1) -> EnvironmentRequest:
    return EnvironmentRequest(object_name(lambda: Counter(space)), num_envs=num_envs, options=options)


PICTURE = Box(0, 255, (40, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("space", "options", "shape"),
    [
        (PICTURE, "", (3, 40, 48)),
        (Box(0, 255, (3, 40, 48), np.uint8), "", (3, 40, 48)),
        (Box(0, 255, (40, 48), np.uint8), "", (1, 40, 48)),
        (Box(0, 255, (40, 48, 12), np.uint8), "", (12, 40, 48)),
        (Box(0, 255, (40, 48, 2), np.uint8), "", (2, 40, 48)),
        (Box(0, 255, (12, 40, 48), np.uint8), "", (12, 40, 48)),
        (Box(0, 255, (10, 10, 10), np.uint8), "", (10, 10, 10)),
        (PICTURE, "size=36", (3, 36, 36)),
        (PICTURE, "size=36,grey=true,stack=4", (4, 36, 36)),
        (PICTURE, "stack=2", (6, 40, 48)),
        (Dict(camera=PICTURE, speed=Box(0, 1, (2,), np.float32)), "grey=true", (1, 40, 48)),
        (Dict(left=PICTURE, right=Box(0, 255, (20, 20), np.uint8)), "key=right", (1, 20, 20)),
    ],
)
def test_images_of_every_kind_become_channels_first(
    space: gymnasium.Space[Any], options: str, shape: tuple[int, ...]
) -> None:
    if "size" in options:
        pytest.importorskip("cv2", reason="resizing needs OpenCV, of the extra 'box2d'")
    found = PROVIDER.describe(request_of(space, options))
    assert found.observation_shape == shape
    assert found.stack == (4 if "stack=4" in options else 2 if "stack=2" in options else 1)


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_episodes_end_by_truncation_and_begin_anew_in_the_same_step(asynchronous: str) -> None:
    envs = PROVIDER.make(request_of(None, f"stack=2,asynchronous={asynchronous}", num_envs=2))
    frames, _ = envs.reset()
    assert frames.shape == (2, 6, 40, 48)
    infos = {}
    for count in range(1, 6):
        assert not infos
        frames, _, terminated, truncated, infos = envs.step(np.zeros(2, np.int64))
        if count < 5:
            assert (frames[0, :3] == count - 1).all()
            assert (frames[0, 3:] == count).all()
    assert truncated.all()
    assert not terminated.any()
    assert (frames == 0).all()
    assert infos["episode"]["r"].tolist() == [10.0, 10.0]
    assert infos["episode"]["l"].tolist() == [5, 5]
    episodes = truncated_episodes(terminated, truncated, infos)
    assert episodes is not None
    assert episodes.envs.tolist() == [0, 1]
    assert (episodes.observations[:, :3] == 4).all()
    assert (episodes.observations[:, 3:] == 5).all()
    envs.close()


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (Box(-1, 1, (4,), np.float32), "", "needs? uint8 images.*AddRenderObservation"),
        (Box(0, 1, (8, 8, 3), np.float32), "", "uint8 images.*TransformObservation"),
        (Dict(a=PICTURE, b=PICTURE), "", "has 2 images.*key=NAME"),
        (Dict(a=Dict(b=PICTURE)), "", "no uint8 image among its observations.*dict within the dict"),
        (Dict(a=PICTURE), "key=b", "key must be one of a, got 'b'"),
        (PICTURE, "stack=0", "stack at least 1"),
        (PICTURE, "size=x", "size must be a whole number, got 'x'"),
    ],
)
def test_wrong_observations_and_options_are_named(space: gymnasium.Space[Any], options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PROVIDER.describe(request_of(space, options))


def test_a_difficulty_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"`distribution_mode` is 'hard', but .* leave the option out"):
        PROVIDER.describe(replace(request_of(PICTURE), difficulty="hard"))


def test_a_factory_that_returns_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must return one gymnasium.Env, got <class 'int'>"):
        PROVIDER.describe(EnvironmentRequest(object_name(lambda: 3)))


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("bigfsh", "no game 'bigfsh'; did you mean 'bigfish'"),
        ("CarRacin-v3", "did you mean 'CarRacing-v3'"),
        ("CarRac", "did you mean 'CarRacing-v3'"),
        pytest.param("Pong", "did you mean 'ALE/Pong-v5'", marks=NEEDS_ATARI),
        ("no_such_module_here:factory", "names module 'no_such_module_here', which cannot be found"),
        ("json:no_such_name", "module 'json' has no 'no_such_name'"),
    ],
)
def test_unknown_ids_are_refused_with_suggestions_over_all_providers(env_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        provider_of(env_id).describe(EnvironmentRequest(env_id))


@pytest.mark.parametrize(
    ("module", "env_id", "options", "extra"),
    [
        ("ale_py.vector_env", "ALE/Pong-v5", "", "atari"),
        ("Box2D", "CarRacing-v3", "lap_complete_percent=0.9", "box2d"),  # not described before, which is cached
        ("cv2", object_name(Counter), "size=37", "box2d"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch, module: str, env_id: str, options: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"not installed; .*pip install .*\[{extra}\]"):
        describe(EnvironmentRequest(env_id, options=options))


class Faulty(Counter):
    """An environment with a fault in its constructor."""

    def __init__(self, lives: int = 3) -> None:
        super().__init__()
        self.lives = lives
        self.levels = len(None)  # type: ignore[arg-type]


def test_a_fault_inside_a_registered_environment_is_not_blamed_on_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("Faulty-v0", entry_point=Faulty)
    with pytest.raises(EnvironmentFailedError, match=r"raised TypeError: .* has no len\(\) \(.*, in __init__\)"):
        PROVIDER.describe(EnvironmentRequest("Faulty-v0"))
    with pytest.raises(ValueError, match=r"`env_options`: Faulty-v0 does not take \{'lifes': 3\}"):
        PROVIDER.describe(EnvironmentRequest("Faulty-v0", options="lifes=3"))
