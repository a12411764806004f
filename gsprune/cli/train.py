"""``gsprune train NAME``, for the built-in algorithms and for those of other packages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gsprune.checks import suggestion
from gsprune.cli.option_groups import groups_of
from gsprune.cli.run_options import RunOptions
from gsprune.cli.training import run_training
from gsprune.rl.algorithms.registry import algorithm_of
from gsprune.rl.training.idle_options import without_idle
from gsprune.rl.training.run_folder import read_config

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
        """The defaults for parsing the command line `argv`: of its preset, or of the run that it resumes.

        Raises:
            ValueError: the preset is unknown, or there is no run of the algorithm to resume.
        """
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--preset", default="paper")
        parser.add_argument("--resume")
        try:
            parsed, _ = parser.parse_known_args(list(argv))
        except argparse.ArgumentError:
            return self.Args()  # the full parser raises the error
        if parsed.resume is not None:
            return self._args_of_run(Path(parsed.resume))
        if parsed.preset not in self.presets:
            near = suggestion(parsed.preset, tuple(self.presets))
            raise ValueError(f"there is no preset {parsed.preset!r}; the presets are {', '.join(self.presets)}{near}")
        return self.Args(**asdict(self.presets[parsed.preset]), preset=parsed.preset)

    def effective(self, args: Any) -> Any:
        """The options. Those without effect get their values in the preset, or in the run to resume."""
        base = self.presets[args.preset] if args.resume is None else self._args_of_run(args.resume)
        return without_idle(args, base)

    def main(self, args: Any) -> int:
        """Train; the exit code is 130 if the user stopped the run."""
        args = self.effective(args)
        return run_training(args, args, self.algorithm)

    def _args_of_run(self, folder: Path) -> Any:
        """The options of a run of this algorithm."""
        values = read_config(folder)
        if values["algorithm"] != self.algorithm.name:
            other = values["algorithm"]
            raise ValueError(f"{str(folder)!r} is a run of {other}; resume it with gsprune train {other} --resume")
        names = {field.name for field in fields(self.Args)} - {"run_dir", "resume"}
        return self.Args(**{name: value for name, value in values.items() if name in names})
