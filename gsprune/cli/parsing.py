"""Parses a command's options into its `Args`. The help shows the options in groups.

tyro prints one group per nested dataclass. But the options of a command are a flat dataclass, because trainers and run
folders read them by name. So `parse` nests them for tyro and flattens the result. The options' names do not change.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from gsprune.checks import suggestion

__all__ = ["form_of", "parse"]

Args = TypeVar("Args")
Groups = Mapping[str, Sequence[str]]  # title -> names of options


def parse(
    args_type: type[Args],
    argv: Sequence[str],
    prog: str,
    description: str | None = None,
    default: Args | None = None,
    groups: Groups | None = None,
) -> Args:
    """The options of one command.

    Args:
        args_type: the command's dataclass; the docstring under a field is the help of its option.
        argv: the arguments after the command's words.
        prog: the command's words, for the usage line.
        description: the text above the options.
        default: the values of options that are not in `argv`; None uses the defaults of `args_type`.
        groups: title of a group -> its options, in the order of the help; None prints one list.

    Raises:
        ValueError: a value is not among an option's choices.
        SystemExit: help was printed, or tyro refused an argument.
    """
    _check_choices(args_type, argv)
    form = form_of(args_type, default, groups)
    filled = tyro.cli(form, prog=prog, description=description, args=argv)
    parts = [filled] if groups is None else [getattr(filled, title) for title in groups]
    return args_type(**{field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part)})


def form_of(args_type: type[Any], default: Any = None, groups: Groups | None = None) -> Any:
    """The dataclass that tyro reads: the fields of `args_type`, in one nested dataclass for each group."""
    hints, helps = get_type_hints(args_type, include_extras=True), _helps(args_type)
    options: dict[str, tuple[str, Any, Any]] = {}
    for field in dataclasses.fields(args_type):
        hint = hints[field.name]
        described = Annotated[hint, tyro.conf.arg(help=helps.get(field.name))]  # type: ignore[valid-type]  # a type made at run time
        options[field.name] = (field.name, described, dataclasses.field(**_default(field, default), kw_only=True))
    if groups is None:
        return dataclasses.make_dataclass(args_type.__name__, options.values())
    parts = []
    for title, names in groups.items():
        part = dataclasses.make_dataclass(title, [options[name] for name in names])
        parts.append((title, Annotated[part, tyro.conf.arg(help="")]))
    marked: Any = tyro.conf.OmitArgPrefixes
    return marked[dataclasses.make_dataclass(args_type.__name__, parts)]


def _default(field: dataclasses.Field[Any], default: Any) -> Mapping[str, Any]:
    """The arguments of `dataclasses.field` for the default of an option; none if the option is required."""
    if default is not None:
        value = getattr(default, field.name)
        return {"default_factory": lambda: value}
    if field.default is not dataclasses.MISSING:
        return {"default": field.default}
    if field.default_factory is not dataclasses.MISSING:
        return {"default_factory": field.default_factory}
    return {}


def _helps(args_type: type[Any]) -> dict[str, str]:
    """Field name -> docstring, in one line. A subclass's docstring takes precedence."""
    helps: dict[str, str] = {}
    for base in reversed(args_type.__mro__[:-1]):
        if dataclasses.is_dataclass(base):
            helps |= _helps_of_class(base)
    return helps


@functools.cache
def _helps_of_class(owner: type[Any]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)
    helps = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            helps[field.target.id] = " ".join(str(text.value.value).split())
    return helps


def _check_choices(args_type: type[Any], argv: Sequence[str]) -> None:
    """Raise a ValueError, with a suggestion, for the first value that is not among its option's choices."""
    hints = get_type_hints(args_type)
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        flag, equals, attached = word.partition("=")
        choices = _choices(hints.get(flag.removeprefix("--").replace("-", "_"))) if flag.startswith("--") else ()
        value = attached if equals else following
        if choices and value and not value.startswith("-") and value not in choices:
            raise ValueError(f"`{flag}` must be one of {', '.join(choices)}, got {value!r}{suggestion(value, choices)}")


def _choices(hint: Any) -> tuple[str, ...]:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return choices if all(isinstance(choice, str) for choice in choices) else ()
