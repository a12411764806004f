"""The importance that a configuration names: a built-in criterion or the user's own."""

from __future__ import annotations

from gsprune.importance import Criterion, Importance, resolve_importance
from gsprune.rl.objects import named_object

__all__ = ["configured_importance"]


def configured_importance(name: str) -> Importance:
    """The importance of that name.

    Args:
        name: a registered criterion, or "package.module:name" of a `Criterion` class or object, an `Importance` or a
            function of a weight matrix.

    Raises:
        ValueError: there is no such criterion.
        TypeError: the user's object is none of the above.
    """
    if ":" not in name:
        return resolve_importance(name)
    found = named_object(name, "importance")
    return resolve_importance(found() if isinstance(found, type) and issubclass(found, Criterion) else found)
