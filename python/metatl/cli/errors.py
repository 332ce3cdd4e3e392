"""Errors and warnings of commands: one line each on stderr; exit code 2 after an error, no traceback."""

from __future__ import annotations

import errno
import os
import re
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.address_space import check_address_space

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED = 2
STOPPED_BY_SIGNAL = 128
INTERRUPTED = STOPPED_BY_SIGNAL + 2


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr if the block raises an error that a user can fix.

    The exit code is 2 after `MetatlError`, `OSError` or a lack of memory, and 130 after Ctrl-C. Any other
    exception is a bug and keeps its traceback. Usable as a decorator too: `@one_line_errors()`.
    """
    from metatl.exceptions import MetatlError

    try:
        with _one_line_warnings():
            yield
    except MetatlError as error:
        raise _Failure(str(error)) from None
    except OSError as error:
        # Click ends the command silently after a closed pipe, as in `metatl stats ... | head -1`.
        if error.errno == errno.EPIPE:
            raise
        raise _Failure(_describe(error)) from None
    except RuntimeError as error:
        # On a processor torch raises a plain RuntimeError.
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise _Failure(f"out of memory: {str(error).splitlines()[0]}; ask for less") from None
    except MemoryError as error:
        raise _Failure(f"out of memory: {error or 'the settings ask for too much'}") from None
    except ImportError as error:
        # The loader's words where a library does not fit into the memory.
        if not any(words in str(error) for words in ("failed to map segment", "allocate memory")):
            raise
        raise _Failure(f"out of memory: {str(error).splitlines()[0]}; allow more") from None
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print each warning of metatl as one line, without the source line that Python adds."""
    from metatl.exceptions import MetatlWarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, MetatlWarning):
            click.echo(f"warning: {' '.join(str(message).split())}", err=True)
        else:
            show_others(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", MetatlWarning)
        show_others = warnings.showwarning
        warnings.showwarning = show
        yield


@contextmanager
def _one_line_usage_errors() -> Iterator[None]:
    """Put the command and its help option into the line of the error, instead of two lines above it."""
    try:
        yield
    except click.UsageError as error:
        # A group without arguments shows its help; since click 8.2 this is a UsageError.
        if error.ctx is None or isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            raise
        help_command = f"{error.ctx.command_path} {error.ctx.help_option_names[0]}"
        raise _Failure(f"{error.format_message().rstrip('.')}; see '{help_command}'") from None


class Command(click.Command):
    """A command under :func:`one_line_errors`."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments."""
        with _one_line_usage_errors():
            context = super().make_context(*args, **kwargs)
            _refuse_undecoded(context)
            return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _one_line_usage_errors(), one_line_errors(), _options_named(self.params):
            return super().invoke(ctx)


@contextmanager
def _options_named(parameters: list[click.Parameter]) -> Iterator[None]:
    """Name the options of the command in errors that name the arguments of the function behind it."""
    from metatl.exceptions import MetatlError

    try:
        yield
    except MetatlError as error:
        message = str(error)
        for parameter in parameters:
            name, option = parameter.name or "", parameter.opts[0]
            if isinstance(parameter, click.Option) and "_" in name:
                message = re.sub(rf"(?<![\w.-]){name}(?![\w=(])", option, message)
            elif isinstance(parameter, click.Option):
                message = re.sub(rf"^{name}: found", f"{option}: found", message)
        raise _Failure(message) from None


class Group(click.Group):
    """A group whose commands are under :func:`one_line_errors`."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments up to the name of the command."""
        with _one_line_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command of the group."""
        with _one_line_usage_errors(), one_line_errors():
            check_address_space()
            return super().invoke(ctx)


def _refuse_undecoded(context: click.Context) -> None:
    """Refuse text and file names that are not UTF-8: polars and the reports cannot hold them."""
    for parameter in context.command.params:
        given = context.params.get(parameter.name or "")
        for value in given if isinstance(given, tuple) else (given,):
            # Python decodes an invalid byte to half of a surrogate pair.
            if isinstance(value, (str, Path)) and any("\udc80" <= half <= "\udcff" for half in str(value)):
                raise click.BadParameter(
                    f"found {os.fsencode(value)!r}, expected UTF-8; rename the file",
                    ctx=context,
                    param=parameter,
                )


class _Failure(click.ClickException):
    exit_code = FAILED

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def _describe(error: OSError) -> str:
    if error.strerror is None:
        return str(error) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
