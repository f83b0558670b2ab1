"""What Python code gives: a value of a wrong type is one line that names it, says what it is, and what is taken.

The annotations say what is taken, so that no other check of types is needed. Values of settings are checked here too, by the
annotations of the fields that they are for (sdist/config/kinds.py).
"""

import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from inspect import Parameter, signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from . import UserError, unknown

P = ParamSpec("P")
R = TypeVar("R")

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    type(None): "None",
    Path: "a path",
    os.PathLike: "a path",
    Callable: "a function",
    Mapping: "a mapping",
    dict: "a mapping",
}  # fmt: skip
SHOWN = (str, int, float, bool, list, tuple, dict, Path)  # values that are quoted in messages
MOST = 60  # characters of a value that are
COUNTS = 10**7  # nobody counts further


# --- checks -------------------------------------------------------------------------------------------------------------


def check(name: str, value: Any, hint: Any) -> None:
    """Raises UserError for a value that is not of the annotated type."""
    if not matches(value, hint):
        raise UserError(f"{name} must be {taken(hint)}, got {shown(value)}")


def check_count(name: str, count: int) -> None:
    """Raises UserError for what is below 1, or beyond what anybody counts to."""
    if count < 1:
        raise UserError(f"{name} must be at least 1, got {count}")
    if count > COUNTS:
        raise UserError(f"{name} must be at most {COUNTS}, got {count}")


def check_fields(instance: Any, where: str = "") -> None:
    """Raises UserError for a field of a dataclass that holds another type than its annotation says; `where` begins the line."""
    for name, hint in _hints(instance.__class__).items():
        check(f"{where}{name}", getattr(instance, name), hint)


def check_options(given: Mapping[str, Any], options: type, function: Callable[..., Any]) -> None:
    """Raises UserError for keywords of a function that are no field of its dataclass of options, or of another type."""
    named = [name for name, parameter in signature(function).parameters.items() if parameter.kind is not Parameter.VAR_KEYWORD]
    hints = _hints(options)
    for name, value in given.items():
        if name not in hints:
            raise unknown("option", name, {*named, *hints}, f"sdist.{function.__name__}")
        check(f"sdist.{function.__name__}: {name}", value, hints[name])


def checked(*elsewhere: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: raises UserError for arguments of other types than annotated, and for names that the function does not have.

    `elsewhere`: arguments that are checked where they are read.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function).parameters

        @wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            _check_arguments(function, parameters, args, keywords, elsewhere)
            return function(*args, **keywords)

        return call

    return decorate


def _check_arguments(
    function: Callable[..., Any], parameters: Mapping[str, Parameter], args: Sequence[Any], keywords: Mapping[str, Any],
    elsewhere: Iterable[str],
) -> None:  # fmt: skip
    open_ended = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    where = function.__qualname__ if "." in function.__qualname__ else f"sdist.{function.__name__}"
    for name, value in [*zip(parameters, args, strict=False), *keywords.items()]:
        if name in parameters and name not in elsewhere and parameters[name].annotation is not Parameter.empty:
            check(f"{where}: {name}", value, parameters[name].annotation)
        elif name not in parameters and not open_ended:
            raise unknown("argument", name, [p for p in parameters if p != "self"], where)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """The annotations of a dataclass's fields."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if f.init}


# --- annotations --------------------------------------------------------------------------------------------------------


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says; a whole number is a number, truth values are none, text is no list."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(matches(value, one) for one in inside)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    kind = type(None) if hint is None else origin or hint
    if hint is Any or not isinstance(kind, type):
        return True
    if not isinstance(value, kind) or (kind is Sequence and isinstance(value, (str, bytes))):
        return False
    return _holds(value, kind, inside)


def _holds(value: Any, kind: type, inside: Sequence[Any]) -> bool:
    """Whether what a list or tuple holds is what the annotation says."""
    if not inside or kind not in (tuple, list, Sequence):
        return True
    if kind is tuple and inside[-1] is not ...:
        return len(value) == len(inside) and all(map(matches, value, inside))
    return all(matches(one, inside[0]) for one in value)


def native(value: Any) -> Any:
    """A value with numbers of NumPy made Python's own, which yaml and json know."""
    if isinstance(value, Mapping):
        return {key: native(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [native(one) for one in value]
    if isinstance(value, Real) and not isinstance(value, (bool, int, float)):
        return int(value) if isinstance(value, Integral) else float(value)
    return float(value) if type(value) is not float and isinstance(value, float) else value


def taken(hint: Any) -> str:
    """An annotation in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(taken(one) for one in inside))
    if origin is Literal:
        return f"one of {', '.join(inside)}"
    if origin is tuple and inside[-1] is not ...:
        return f"({', '.join(map(taken, inside))})"
    if origin in (tuple, list, Sequence):
        return f"a list (each {taken(inside[0])})"
    kind = origin or hint
    name = getattr(kind, "__name__", str(kind))
    return WORDS.get(kind) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def shown(value: Any) -> str:
    """A value for a message: what it is, and of which type."""
    kind = type(value)
    if value is None:
        return "None"
    if not isinstance(value, SHOWN):
        return f"{kind.__module__.partition('.')[0]}.{kind.__name__}".removeprefix("builtins.")
    text = repr(value)
    return f"{text if len(text) <= MOST else text[: MOST - 3] + '...'} ({kind.__name__})"
