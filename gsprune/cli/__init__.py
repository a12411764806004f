"""The command line: ``gsprune train ppo``, ``gsprune inspect`` and so on.

A command is a module of this package with a dataclass `Args`, whose field docstrings are the help, and ``main(args)``,
which returns nothing or an exit code. A module may have more functions: ``defaults(argv) -> Args`` returns defaults
that depend on the arguments (presets), ``normalized(argv) -> argv`` rewrites words that the parser would misread, and
``groups_of(Args)`` returns the option groups of the help. ``train NAME`` is an object with these attributes, made for
the algorithm. `COMMANDS` lists the commands. A module is imported only when its command is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import gsprune
from gsprune.checks import suggestion
from gsprune.errors import GspruneError, needs, place_in_user_code, user_frames

__all__ = ["COMMANDS", "command_of", "main"]

COMMANDS: dict[str, str] = {
    "train ppo": "train an agent with PPO while its network shrinks",
    "train dqn": "train an agent with DQN while its network shrinks",
    "eval": "evaluate the agent of a run, also under pixel noise",
    "play": "play episodes with a run's agent in a window, or record them as mp4 and GIF",
    "report": "make tables and pictures of one or many runs",
    "sweep": "train environments x methods x seeds in local processes or on a Ray cluster",
    "export": "write the policy of a run as ONNX or a PyTorch program, with a contract",
    "compact": "remove channels of a run's network that do not affect its output",
    "latency": "time the networks of runs, dense and pruned, in several engines",
    "inspect": "show the groups of a run, a checkpoint, a file of gsprune.save or a built-in network",
}
"""Words of a command -> one line of help."""

_USAGE_ERROR = 2
_FAILURE = 1
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None takes those of the process.

    Returns:
        exit code: 0, 2 for a bad argument, 1 for another failure, 130 after Ctrl-C.

    Raises:
        Exception: a fault of gsprune, with its whole traceback. For a fault in the user's code, only the frames of that
            code are printed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = _command(arguments)
    try:
        if arguments[:1] == ["--tyro-write-completion"]:
            return _complete(arguments)
        if command is None:
            return _show_commands(arguments)
        return _run(command, arguments[len(command.split()) :])
    except KeyboardInterrupt as error:
        return _complain(error, _INTERRUPTED)
    except Exception as error:
        return _failure(error)


def _command(arguments: Sequence[str]) -> str | None:
    """The command that the arguments begin with."""
    if arguments[:1] == ["train"] and ":" in "".join(arguments[1:2]):
        return f"train {arguments[1]}"  # an algorithm of another package
    for command in COMMANDS:
        words = command.split()
        if list(arguments[: len(words)]) == words:
            return command
    return None


def command_of(words: str) -> Any:
    """The module of a command, or the `TrainCommand` of an algorithm.

    Args:
        words: a key of `COMMANDS`, or ``train package.module:NAME``.
    """
    word, _, algorithm = words.partition(" ")
    module = importlib.import_module(f"gsprune.cli.{word}")
    return module.TrainCommand(algorithm) if algorithm else module


def _run(command: str, arguments: Sequence[str]) -> int:
    _require_tyro()
    from gsprune.cli.parsing import parse

    module = command_of(command)
    arguments = module.normalized(arguments) if hasattr(module, "normalized") else arguments
    default = module.defaults(arguments) if hasattr(module, "defaults") else None
    groups = module.groups_of(module.Args) if hasattr(module, "groups_of") else None
    args = parse(module.Args, arguments, f"gsprune {command}", module.__doc__, default, groups)
    return module.main(args) or 0


def _require_tyro() -> None:
    with needs("tyro", "train"):
        importlib.import_module("tyro")


def _complete(arguments: Sequence[str]) -> int:
    _require_tyro()
    from gsprune.cli.completion import write_completion

    write_completion({command: command_of(command).Args for command in COMMANDS}, arguments)
    return 0


def _show_commands(arguments: Sequence[str]) -> int:
    """Print the help, the version, or an error for a missing or unknown command."""
    if "--version" in arguments[:1]:
        sys.stdout.write(f"gsprune {gsprune.__version__}\n")
        return 0
    first = next((word for word in arguments[:1] if any(command.startswith(f"{word} ") for command in COMMANDS)), "")
    commands = {command: text for command, text in COMMANDS.items() if command.startswith(first)}
    width = max(len(command) for command in commands)
    lines = [f"  gsprune {command:<{width}}  {text}" for command, text in commands.items()]
    own = "train takes an algorithm of your own, too: gsprune train package.module:NAME"
    table = "\n".join(["commands (each has --help):", *lines, "", own])
    rest = arguments[1:] if first else arguments
    if rest and rest[0] in ("-h", "--help"):
        sys.stdout.write(f"gsprune: gradual group-structured pruning of networks while they train\n\n{table}\n")
        return 0
    if not arguments:
        complaint = "a command is missing"
    elif first and (not rest or rest[0].startswith("-")):
        complaint = f"gsprune {first} needs one of these"
    else:
        complaint = _unknown_command(arguments)
    sys.stderr.write(f"gsprune: {complaint}\n{table}\n")
    return _USAGE_ERROR


def _unknown_command(arguments: Sequence[str]) -> str:
    """The error message for an unknown command, with a suggestion."""
    two_words = " ".join(arguments[:2])
    near = suggestion(two_words, [command for command in COMMANDS if " " in command])
    if near:
        return f"there is no command {two_words!r}{near}"
    first_words = [command.split()[0] for command in COMMANDS]
    return f"there is no command {arguments[0]!r}{suggestion(arguments[0], first_words)}"


def _failure(error: Exception) -> int:
    """Print an error, and return the exit code. A fault of gsprune is raised again."""
    code = _USAGE_ERROR if isinstance(error, ValueError | TypeError) else _FAILURE
    if not isinstance(error, ValueError | TypeError | GspruneError | OSError):
        frames = user_frames(error)
        if not frames:
            raise error
        sys.stderr.write("".join(traceback.format_list(frames)))
    return _complain(error, code)


def _complain(error: BaseException, code: int) -> int:
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | TypeError | GspruneError | OSError):
        message = f"{type(error).__name__}: {message}"
    if not isinstance(error, GspruneError):  # these name the place themselves
        message += place_in_user_code(error)
    name = f"gsprune (process {os.environ.get('RANK')})" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "gsprune"
    sys.stderr.write(f"{name}: error: {message}\n" if code != _INTERRUPTED else f"{name}: interrupted\n")
    return code
