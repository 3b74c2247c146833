"""Makes commands of dataclasses: each option is declared once, as a field of the dataclass that a command gets.

    @dataclass(frozen=True, kw_only=True)
    class GreetOptions:
        name: str = argument("The person to greet.")
        times: int = option("The number of greetings.", default=1, min=1)

    @command(app, GreetOptions)
    def greet(options: GreetOptions) -> None:
        \"\"\"Greet somebody.\"\"\"

A new field is a new option of the command line: `times` is `--times`. A field that is declared without `option` or
`argument` is not an option.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from .terminal import clear_errors


@dataclass(frozen=True)
class Declared:
    """What the command line knows of a field besides its type and default.

    Attributes:
        help: what the option does, as sentences.
        names: the words that call an option, such as "--format"; by default they are made of the name of the field.
        positional: whether it is an argument, which is given without a name.
        typed: the type that the command line reads, where it differs from the type of the field.
        parse: turns what the command line has read into the value of the field.
        settings: what typer gets in addition, such as `min`, `max` and `metavar`.
    """

    help: str
    names: tuple[str, ...]
    positional: bool
    typed: Any
    parse: Callable[[Any], Any] | None
    settings: dict[str, Any]


def option(
    help: str,
    *names: str,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    typed: Any = None,
    parse: Callable[[Any], Any] | None = None,
    **settings: Any,
) -> Any:
    """Declare a field of a dataclass as an option of a command; see `Declared`. Without a default it is required.

    The name of a true-or-false option may be given as "--streaming", which leaves out its opposite "--no-streaming".
    """
    declared = Declared(help, names, False, typed, parse, settings)
    return dataclasses.field(default=default, default_factory=default_factory, metadata={"declared": declared})


def argument(help: str, default: Any = MISSING, **settings: Any) -> Any:
    """Declare a field of a dataclass as an argument of a command, which is given without a name; see `Declared`."""
    declared = Declared(help, (), True, None, None, settings)
    return dataclasses.field(default=default, metadata={"declared": declared})


def command(app: typer.Typer, options: type, name: str | None = None, help: str | None = None) -> Callable:
    """Add a command to an application; it is called with its options and its errors become one line each.

    Args:
        app: the application.
        options: a dataclass whose fields are declared with `option` and `argument`.
        name: the name of the command; by default the name of the function.
        help: the help text of the command; by default the docstring of the function.
    """
    known = declarations(options)

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def run(**given: Any) -> None:
            with clear_errors():
                function(options(**{field: read(known[field], value) for field, value in given.items()}))

        run.__doc__ = function.__doc__
        required_first = sorted(known.values(), key=lambda pair: not is_required(pair[0]))
        run.__dict__["__signature__"] = inspect.Signature([parameter(declared) for declared in required_first])
        app.command(name or function.__name__, help=help)(run)
        return function

    return add


def declarations(options: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    """Return the fields of a dataclass that are options, by name, each with its type."""
    hints = get_type_hints(options)
    found = {field.name: (field, hints[field.name]) for field in dataclasses.fields(options)}
    return {name: pair for name, pair in found.items() if "declared" in pair[0].metadata}


def parameter(known: tuple[dataclasses.Field, Any]) -> inspect.Parameter:
    """Return a field as the parameter that typer makes an option or an argument of."""
    field, hint = known
    declared = field.metadata["declared"]
    settings = {"help": declared.help, **declared.settings}
    if is_path(hint):
        settings.setdefault("metavar", "PATH")
    default: Any = inspect.Parameter.empty
    if declared.parse is not None and not is_required(field):
        default = None  # `read` puts the default of the field there
    elif field.default_factory is not MISSING:
        settings["default_factory"] = field.default_factory
    elif field.default is not MISSING:
        default = str(field.default) if isinstance(field.default, Path) else field.default
    kind = typer.Argument if declared.positional else typer.Option
    annotation: Any = Annotated[declared.typed or typed(hint), kind(*declared.names, **settings)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def read(known: tuple[dataclasses.Field, Any], value: Any) -> Any:
    """Return what the command line has read as the value of a field.

    Raises:
        ValueError: a text is empty, or cannot be parsed.
    """
    field, hint = known
    declared = field.metadata["declared"]
    if not value and declared.parse is not None and not is_required(field):
        return field.default_factory() if field.default_factory is not MISSING else field.default
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(text, str) and not text.strip() for text in texts):
        shown = field.name.upper() if declared.positional else (declared.names or (flag(field.name),))[0]
        raise ValueError(f"{shown}: expected {'a path' if is_path(hint) else 'a text'}, got an empty one")
    if declared.parse is not None:
        return declared.parse(value)
    if is_path(hint) and isinstance(value, str):
        return Path(value)
    if isinstance(value, list):
        return tuple(Path(text) if is_path(hint) else text for text in value)
    return value


def is_required(field: dataclasses.Field) -> bool:
    """Return whether a field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def flag(name: str) -> str:
    """Return the words that call the option of a field."""
    return "--" + name.replace("_", "-")


def typed(hint: Any) -> Any:
    """Return the type that typer reads for a field. Paths are read as texts: an empty path would pass as "."."""
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return reduce(or_, (typed(part) for part in get_args(hint)))
    if get_origin(hint) is tuple:
        return types.GenericAlias(list, (typed(get_args(hint)[0]),))
    return str if hint is Path else hint


def is_path(hint: Any) -> bool:
    """Return whether the values of a field are paths."""
    return hint is Path or any(is_path(part) for part in get_args(hint))
