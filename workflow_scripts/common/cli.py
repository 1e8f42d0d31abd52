"""The command line of every step: derived from its function, with clear errors and log lines."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

T = TypeVar("T")
ARGUMENTS = ".snakemake/arguments/"
"""Folder of arguments too long for a command line: ``@`` and a file there stand for its content."""


class UserError(Exception):
    """A mistake in the user's input: one sentence that names the culprit and the remedy."""


def log(message: str) -> None:
    """Print one time-stamped line to standard error (a job's log file)."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def guarded(step: Callable[[], None]) -> int:
    """Run ``step``; return 0, or print one sentence and return 2.

    That of a :class:`UserError`, after its cause, or that the disk is full. In the latter case the
    process ends at once: HDF5 crashes at exit over a file that it could not write.
    """
    try:
        step()
    except UserError as error:
        if error.__cause__ is not None:
            log(f"{type(error.__cause__).__name__}: {shortened(error.__cause__)}")
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except Exception as error:
        if not is_full(error):
            raise
        print(
            f"error: the disk is full, or a file too large for it ({shortened(error)}): make room "
            "and run again: what is finished is kept",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)
    return 0


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOLD = re.compile(rf"(errno =|os error) ({'|'.join(map(str, FULL))})\b")
"""How HDF5 and safetensors tell an error number."""


def is_full(error: BaseException) -> bool:
    """Return whether a file could not be written for want of room."""
    return getattr(error, "errno", None) in FULL or TOLD.search(str(error)) is not None


def shortened(error: BaseException) -> str:
    """Return an error's message on one line, cut after a long path, or its type."""
    return " ".join(str(error).split())[:1000] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def quoted(value: object) -> str:
    """Return a value as a message holds it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(text: str, kind: type[T], flag: str) -> T:
    """Parse a flag's JSON into ``kind``.

    Raises
    ------
    UserError
        If it does not have that form.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise UserError(f"{flag} is not valid at {where}: {_message(first['msg'])}") from None


def _message(text: str) -> str:
    """Return pydantic's message, of a group's own check without the prefix."""
    return text.removeprefix("Value error, ")


def command(step: Callable[..., None]) -> Callable[..., int]:
    """Return a ``main`` that runs ``step`` with the arguments of a command line.

    The flags follow from the function's annotations: a parameter that is a group of settings gives
    a flag for each of its fields, with the group's default and description; a list takes several
    values, a mapping takes JSON; a positional-only parameter has no flag. The function's docstring
    describes its other parameters.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        given = sys.argv[1:] if argv is None else argv
        return guarded(lambda: _call(step, [_read(argument) for argument in given]))

    main.step = step  # type: ignore[attr-defined]
    return main


def _read(argument: str) -> str:
    """Return an argument, with what its file holds if it is passed by file."""
    flag, at, path = argument.partition(f"@{ARGUMENTS}")
    if not at or (flag and not re.fullmatch("--[a-z0-9-]+=", flag)):
        return argument
    try:
        return flag + Path(ARGUMENTS, path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{ARGUMENTS}{path} cannot be read ({error.strerror}): run again") from None


def _call(step: Callable[..., None], argv: list[str]) -> None:
    """Run ``step`` with the arguments in ``argv``.

    Raises
    ------
    UserError
        If they do not fit its signature.
    """
    import cyclopts

    several = cyclopts.Parameter(consume_multiple=1, json_list=False, negative=())
    app = cyclopts.App(version_flags=[], default_parameter=several, help_format="plaintext")
    app.default(_flattened(step))
    try:
        called, bound, _ = app.parse_args(argv, exit_on_error=False, print_error=False)
    except cyclopts.ValidationError as error:
        cause = error.__cause__
        if not isinstance(cause, ValidationError):
            raise UserError(shortened(error)) from None
        first = cause.errors(include_url=False)[0]
        flag = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
        if first["type"] == "value_error":  # of a group's own check, which says what is wrong
            raise UserError(f"{flag} {_message(first['msg'])}") from None
        raise UserError(f"{flag} is {quoted(first['input'])}: {first['msg']}") from None
    except cyclopts.CycloptsError as error:
        raise UserError(shortened(error)) from None
    bound.apply_defaults()
    called(*bound.args, **bound.kwargs)


def _json(hint: type[T], tokens: Sequence[Any]) -> T:
    """Return the value of a flag that carries a structure."""
    return parse(tokens[0].value, hint, tokens[0].keyword)


def _whole(_: type[int], tokens: Sequence[Any]) -> int:
    """Return the value of a flag that is a whole number; another number is not rounded."""
    text, flag = tokens[0].value, tokens[0].keyword
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{flag} is {quoted(text)}: give a whole number") from None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union."""
    return get_args(hint) if get_origin(hint) is UnionType else ()


def _flattened(step: Callable[..., None]) -> Callable[..., None]:
    """Return ``step`` with a signature in which groups of settings give their own flags."""
    from cyclopts import Parameter

    hints = get_type_hints(step, include_extras=True)
    parameters = []
    for name, parameter in inspect.signature(step).parameters.items():
        hint, default = hints[name], parameter.default
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            required = any(field.is_required() for field in hint.model_fields.values())
            default = inspect.Parameter.empty if required else hint()
            hint = Annotated[hint, Parameter(name="*")]
        elif dict in (get_origin(hint), *map(get_origin, _alternatives(hint))):
            hint = Annotated[hint, Parameter(converter=_json, n_tokens=1, accepts_keys=False)]
        elif hint in (int, int | None):
            hint = Annotated[hint, Parameter(converter=_whole)]
        kind = parameter.kind
        if kind is not inspect.Parameter.POSITIONAL_ONLY:
            kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(parameter.replace(annotation=hint, default=default, kind=kind))

    def flattened(*arguments: Any, **flags: Any) -> None:
        step(*arguments, **flags)

    flattened.__doc__ = step.__doc__ or inspect.getdoc(inspect.getmodule(step))
    flattened.__annotations__ = {p.name: p.annotation for p in parameters}
    flattened.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return flattened
