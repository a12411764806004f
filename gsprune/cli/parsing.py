"""Parses a command's options into its `Args`. The help shows the options in groups.

tyro prints one group per nested dataclass. But the options of a command are a flat dataclass, because trainers and run
folders read them by name. So `parse` nests them for tyro and flattens the result. The options' names do not change.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from gsprune.checks import suggestion

__all__ = ["form_of", "parse"]

Args = TypeVar("Args")
Groups = Mapping[str, Sequence[str]]  # title -> names of options

_MAX_COLUMNS = 120  # maximum width of the text above the options
_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


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
    filled = tyro.cli(form, prog=prog, description=None if description is None else _wrapped(description), args=argv)
    parts = [filled] if groups is None else [getattr(filled, title) for title in groups]
    return args_type(**{field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part)})


def form_of(args_type: type[Any], default: Any = None, groups: Groups | None = None) -> Any:
    """The dataclass that tyro reads: the fields of `args_type`, in one nested dataclass for each group."""
    hints, helps = get_type_hints(args_type, include_extras=True), _helps(args_type)
    options: dict[str, tuple[str, Any, Any]] = {}
    for field in dataclasses.fields(args_type):
        hint = hints[field.name]
        described = Annotated[hint, _argument(hint, helps.get(field.name))]  # type: ignore[valid-type]  # a type made at run time
        options[field.name] = (field.name, described, dataclasses.field(**_default(field, default), kw_only=True))
    if groups is None:
        return dataclasses.make_dataclass(args_type.__name__, options.values())
    parts = []
    for title, names in groups.items():
        part = dataclasses.make_dataclass(title, [options[name] for name in names])
        parts.append((title, Annotated[part, tyro.conf.arg(help="")]))
    marked: Any = tyro.conf.OmitArgPrefixes
    return marked[dataclasses.make_dataclass(args_type.__name__, parts)]


def _argument(hint: Any, text: str | None) -> Any:
    """Settings for tyro's help of an option. Empty defaults are hidden, because `text` explains the unset option."""
    kinds = [kind for kind in _kinds(hint) if kind is not NoneType]
    metavar = None
    if all(kind in _METAVARS for kind in kinds):
        metavar = "|".join(_METAVARS[kind] for kind in kinds)
    elif NoneType in _kinds(hint) and not _is_sequence(hint):
        metavar = "{" + ",".join(_choices(hint)) + "}"
    if metavar is not None and _is_sequence(hint):
        metavar = f"[{metavar} ...]"
    elif metavar is not None and NoneType in _kinds(hint) and tyro.conf.Positional in get_args(hint):
        metavar = f"[{metavar}]"
    return tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint=_default_text)


def _default_text(default: str) -> str:
    return "" if default in ("None", "", "''") else f"(default: {default})"


def _wrapped(description: str) -> str:
    """The paragraphs, wrapped to the terminal and indented like the options, because tyro keeps indented lines."""
    columns = min(shutil.get_terminal_size().columns, _MAX_COLUMNS)
    paragraphs = [" ".join(text.split()) for text in description.strip().split("\n\n")]
    return "\n".join(
        textwrap.fill(text, columns - 2, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        for text in paragraphs
    )


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
        if dataclasses.is_dataclass(base) and inspect.get_annotations(base):
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
    for i, word in enumerate(argv):
        flag, equals, attached = word.partition("=")
        hint = hints.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        choices = _choices(hint)
        values = [attached] if equals else argv[i + 1 : None if _is_sequence(hint) else i + 2]
        for value in itertools.takewhile(lambda value: not value.startswith("-"), values if choices else ()):
            if value not in choices and not _is_other_value(hint, value):
                number = "a number, or " if int in _kinds(hint) else ""
                near = suggestion(value, choices)
                raise ValueError(f"`{flag}` must be {number}one of {', '.join(choices)}, got {value!r}{near}")


def _is_other_value(hint: Any, value: str) -> bool:
    """True if an option accepts the value in addition to its named choices."""
    kinds = list(_kinds(hint))
    return (int in kinds and value.isdecimal()) or (NoneType in kinds and value == "None")


def _choices(hint: Any) -> tuple[str, ...]:
    """The words that an option accepts; none if it accepts any word."""
    kinds = list(_kinds(hint))
    if any(kind in (str, Path, float) for kind in kinds):
        return ()
    return tuple(kind for kind in kinds if isinstance(kind, str))


def _kinds(hint: Any) -> Iterator[Any]:
    """The types and literal values that are allowed for an option's value, or for each of its values."""
    origin = get_origin(hint)
    if origin is Literal:
        yield from get_args(hint)
    elif origin is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif origin is None:
        yield hint
    else:  # a union, or a tuple of any length
        for part in get_args(hint):
            if part is not Ellipsis:
                yield from _kinds(part)


def _is_sequence(hint: Any) -> bool:
    origin = get_origin(hint)
    return _is_sequence(get_args(hint)[0]) if origin is Annotated else origin is tuple
