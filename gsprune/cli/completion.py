"""Completion scripts for shells, which tyro generates from the options of all commands."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from gsprune.cli.parsing import form_of

__all__ = ["write_completion"]

_SHELLS = ("bash", "zsh")


def write_completion(args_types: Mapping[str, type[Any]], arguments: Sequence[str]) -> None:
    """Write the completion script of one shell.

    Args:
        args_types: words of a command -> its `Args`.
        arguments: the option, the shell, and a file (``-`` is standard output).

    Raises:
        ValueError: the shell is unknown, or the file is missing.
        SystemExit: with code 0, once the script is written.
    """
    if len(arguments) != 3 or arguments[1] not in _SHELLS:
        raise ValueError(f"`{arguments[0]}` needs a shell ({', '.join(_SHELLS)}) and a file; - prints the script")
    forms: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for command, args_type in args_types.items():
        word, _, rest = command.partition(" ")
        form = form_of(args_type)
        (nested.setdefault(word, {}) if rest else forms)[rest or word] = form
    for word, choices in nested.items():
        forms[word] = dataclasses.make_dataclass(word, [("choice", _one_of(choices))])
    marked: Any = tyro.conf.OmitSubcommandPrefixes
    tyro.cli(marked[_one_of(forms)], prog="gsprune", args=list(arguments))


def _one_of(forms: Mapping[str, Any]) -> Any:
    """A union type that tyro turns into one subcommand per form."""
    choices: list[Any] = [Annotated[form, tyro.conf.subcommand(name)] for name, form in forms.items()]
    return functools.reduce(operator.or_, choices)
