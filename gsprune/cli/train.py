"""``gsprune train NAME``, for the built-in algorithms and for those of other packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gsprune.cli.option_groups import groups_of
from gsprune.cli.presets import RunOptions, base_of, defaults_for
from gsprune.cli.training import run_training
from gsprune.rl.algorithms.registry import algorithm_of
from gsprune.rl.training.idle_options import without_idle

__all__ = ["TrainCommand"]


class TrainCommand:
    """The training command of one algorithm, which has the attributes of a command's module.

    Attributes:
        Args: the dataclass of the options: those of the algorithm and `RunOptions`.
        presets: name -> values of ``--preset``.
    """

    groups_of = staticmethod(groups_of)

    def __init__(self, name: str) -> None:
        """Make the command.

        Args:
            name: of the algorithm, see `algorithm_of`.

        Raises:
            ValueError: the name is unknown.
            TypeError: the object of that name is no `Algorithm`.
        """
        self.algorithm = algorithm_of(name)
        self.presets = {"paper": self.algorithm.config(), **self.algorithm.presets}
        text = f"Options of ``gsprune train {name}``."
        options = type("Args", (self.algorithm.config, RunOptions), {"__doc__": text, "__module__": __name__})
        self.Args: type[Any] = dataclass(frozen=True, kw_only=True)(options)
        title = name if ":" in name else name.upper()
        self.__doc__ = f"Train an agent on images with {title} while its network shrinks."

    def defaults(self, argv: Sequence[str]) -> Any:
        """The values of the preset, or those of the run to resume."""
        return defaults_for(self.Args, self.presets, self.algorithm.name, argv)

    def effective(self, args: Any) -> Any:
        """The options, with the defaults for those of the preset that have no effect."""
        return without_idle(args, base_of(args, self.presets))

    def main(self, args: Any) -> int:
        """Train; the exit code is 130 if the user stopped the run."""
        args = self.effective(args)
        return run_training(args, args, self.algorithm)
