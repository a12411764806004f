"""The plan of a sweep: games x methods x seeds, from a YAML file or from the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gsprune.errors import needs
from gsprune.rl.algorithms.registry import algorithm_of
from gsprune.rl.envs.registry import provider_of
from gsprune.rl.training.idle_options import IGNORED_BY

__all__ = [
    "BUILT_IN_METHODS",
    "Options",
    "Study",
    "Trial",
    "option_arguments",
    "parse_method",
    "parse_options",
    "read_study",
]

Options = Mapping[str, Any]
"""Options of `gsprune train` by name, with dashes or underscores. An option with value None is left out."""

BUILT_IN_METHODS: dict[str, dict[str, Any]] = {
    "dense": {"pruning": "none"},
    "group": {"pruning": "group"},
    "structured": {"pruning": "structured"},
    "unstructured": {"pruning": "unstructured"},
    "redo": {"pruning": "redo"},
}
"""Methods that a study can name without listing options."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WIDTHS_OF = "widths-of"
_SET_BY_SWEEP = ("env_id", "seed", "run_dir", "resume")


@dataclass(frozen=True)
class Trial:
    """One training run of a sweep.

    Attributes:
        algorithm: name of the algorithm, see `algorithm_of`.
        game: the id of the environment.
        method: name of the method.
        seed: the training seed.
        folder: the run folder.
        arguments: options of `gsprune train ALGORITHM`, without game, seed and run folder.
        needs: run folder of another trial that must finish before this one, or None.
    """

    algorithm: str
    game: str
    method: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    needs: Path | None = None

    @property
    def name(self) -> str:
        """The trial's name in the table and in messages."""
        return f"{self.game}/{self.method}/seed-{self.seed}"


@dataclass(frozen=True)
class Study:
    """Games x methods x seeds.

    Attributes:
        games: ids of environments.
        seeds: training seeds.
        methods: method name -> options. They override `common`. The value of `widths-of` may be the name of another
            method: the trial then takes the widths of that method's run with the same game and seed, after it finished.
        algorithm: name of the algorithm, see `algorithm_of`.
        common: options of all trials. A trial leaves out those that its pruning method ignores.
    """

    games: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: Mapping[str, Options]
    algorithm: str = "ppo"
    common: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        algorithm_of(self.algorithm)
        for name in ("games", "seeds", "methods"):
            values = list(getattr(self, name))
            if not values:
                raise ValueError(f"`{name}` must not be empty: a sweep runs games x methods x seeds")
            if len(set(values)) < len(values):
                raise ValueError(f"`{name}` must not repeat a value, got {values}")
        for game in self.games:
            _check_game(game)
        for seed in self.seeds:
            if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
                raise ValueError(f"`seeds` must be integers of at least 0, got {seed!r}")
        for method, options in self.methods.items():
            if not _NAME.fullmatch(method):
                raise ValueError(
                    f"a method's name is also a folder name: use letters, digits, '.', '_' and '-', got {method!r}"
                )
            _check_options(options, f"methods.{method}")
        _check_options(self.common, "common")
        self._refuse_circles()

    def trials(self, out: Path) -> list[Trial]:
        """All trials, ordered by seed, so that an unfinished sweep has about as many runs of each method.

        The folder of a trial is ``out/game/method/seed-N``.
        """
        return [
            self._trial(out, game, method, seed)
            for seed in self.seeds
            for game in self.games
            for method in self.methods
        ]

    def _trial(self, out: Path, game: str, method: str, seed: int) -> Trial:
        folder = _game_folder(out, game) / method / f"seed-{seed}"
        options = self._options(method)
        needs = None
        if options.get(_WIDTHS_OF) in self.methods:
            needs = _game_folder(out, game) / str(options[_WIDTHS_OF]) / f"seed-{seed}"
            options[_WIDTHS_OF] = str(needs)
        return Trial(self.algorithm, game, method, seed, folder, tuple(option_arguments(options)), needs)

    def _options(self, method: str) -> dict[str, Any]:
        common, own = _dashed(self.common), _dashed(self.methods[method])
        pruning = str(own.get("pruning", common.get("pruning", "group")))
        ignored = _dashed(dict.fromkeys(IGNORED_BY.get(pruning, ())))
        return {**{name: value for name, value in common.items() if name not in ignored}, **own}

    def _refuse_circles(self) -> None:
        """Refuse methods that wait for each other: a sweep would never end."""
        for method in self.methods:
            chain = [method]
            while (needed := self._options(chain[-1]).get(_WIDTHS_OF)) in self.methods:
                if needed in chain:
                    raise ValueError(f"`widths-of` must not be circular: {' needs '.join([*chain, str(needed)])}")
                chain.append(str(needed))


def _check_game(game: str) -> None:
    try:
        provider_of(game)
    except ValueError as error:
        raise ValueError(f"`games`: {error}") from error


def _game_folder(out: Path, game: str) -> Path:
    """The folder of a game. Characters that are unsafe in file names become dashes."""
    return out / re.sub(r"[^\w.-]+", "-", game)


def read_study(path: Path) -> Study:
    """Read a study from a YAML file.

    Args:
        path: the file, with a mapping of `games`, `seeds` and `methods` (a list of built-in names, or a mapping from
            names to options). `algorithm` and `common` are optional.

    Raises:
        ValueError: the file cannot be read, is not YAML, or is not a study.
        MissingExtraError: PyYAML is not installed.
    """
    with needs("pyyaml", "train"):
        import yaml
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the study {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"the study {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"the study {path} must be a mapping with games, seeds and methods, got {type(content).__name__}"
        )
    keys = [field.name for field in fields(Study)]
    unknown = [str(key) for key in content if key not in keys]
    if unknown:
        raise ValueError(f"the study {path} has unknown keys {', '.join(unknown)}; the keys are {', '.join(keys)}")
    missing = [key for key in ("games", "seeds", "methods") if key not in content]
    if missing:
        raise ValueError(f"the study {path} lacks {', '.join(missing)}")
    return Study(
        games=_as_tuple(content["games"]),
        seeds=_as_tuple(content["seeds"]),
        methods=_methods(content["methods"]),
        algorithm=content.get("algorithm", "ppo"),
        common=content.get("common") or {},
    )


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """Parse a method from the command line into its name and options.

    Args:
        text: a built-in name, such as "group", or a definition, such as "narrow=--pruning none --width 1".

    Raises:
        ValueError: `text` is not a built-in method or a definition.
    """
    name, equals, rest = text.partition("=")
    if not equals:
        return name, _built_in(name)
    return name, parse_options(rest)


def parse_options(text: str) -> dict[str, Any]:
    """Parse options from a command line: "--width 1 --rescale" -> {"width": "1", "rescale": True}.

    Raises:
        ValueError: the first word is not an option.
    """
    options: dict[str, Any] = {}
    name: str | None = None
    for word in shlex.split(text):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else True
        elif name is None:
            raise ValueError(f"options begin with '--', got {word!r} in {text!r}")
        else:
            value = options[name]
            options[name] = word if value is True else [*(value if isinstance(value, list) else [value]), word]
    return options


def option_arguments(options: Options) -> list[str]:
    """Convert options to words of a command line.

    Example: {"width": 1, "rescale": True, "channels_last": False} -> ``--width 1 --rescale --no-channels-last``. A list
    becomes several words.
    """
    words: list[str] = []
    for name, value in _dashed(options).items():
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{name}", *map(str, value)]
        else:
            words += [f"--{name}", str(value)]
    return words


def _methods(content: object) -> dict[str, Options]:
    if isinstance(content, dict):
        return {str(name): _built_in(str(name)) if options is None else options for name, options in content.items()}
    return {str(name): _built_in(str(name)) for name in _as_tuple(content)}


def _built_in(name: str) -> dict[str, Any]:
    if name not in BUILT_IN_METHODS:
        raise ValueError(
            f"there is no built-in method {name!r} ({', '.join(BUILT_IN_METHODS)}); define it by its options: "
            f"{name}: {{pruning: none, width: 1}} in YAML, or '{name}=--pruning none --width 1' on the command line"
        )
    return BUILT_IN_METHODS[name]


def _check_options(options: object, where: str) -> None:
    if not isinstance(options, Mapping):
        raise ValueError(f"`{where}` must map options to values, got {options!r}")
    for name in options:
        if str(name).replace("-", "_") in _SET_BY_SWEEP:
            raise ValueError(f"`{where}` must not set {name!r}: the sweep sets it for every trial")


def _dashed(options: Options) -> dict[str, Any]:
    """The options with dashes for underscores in their names, as on the command line."""
    return {str(name).replace("_", "-"): value for name, value in options.items()}


def _as_tuple(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
