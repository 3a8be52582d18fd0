"""The `augforge` command: its sub-commands, and the exit codes that scripts rely on."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TextIO

import click

from augforge import __version__
from augforge.cli.auto import auto
from augforge.cli.bench import bench
from augforge.cli.check import check
from augforge.cli.cite import cite
from augforge.cli.doctor import doctor
from augforge.cli.fit import fit
from augforge.cli.list import list_parts
from augforge.cli.measure import measure
from augforge.cli.predict import predict
from augforge.cli.preview import preview
from augforge.cli.regen import regen
from augforge.cli.report import report
from augforge.cli.suggest import suggest
from augforge.cli.synth import synth
from augforge.data.notes import Note

INTERRUPTED = 130
_LONGEST = 600  # characters of a sentence


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="augforge")
def cli() -> None:
    """Make the missing examples of classes that have few, and keep a record of where each came from.

    Exit codes: 0 done, 1 unexpected error, 2 bad input or usage, 3 a quota was not met or `check` found leaks, 4
    something that this machine lacks, 130 interrupted.
    """


_trust = click.Option(["--trust"], multiple=True, expose_value=False, metavar="MODULE:CLASS",
                      help="Import this class where a saved part or a run names it; may be given again.")  # fmt: skip
for command in (synth, fit, bench, measure, check, regen, predict, suggest, auto, preview, report):
    command.params.append(_trust)
for command in (
    synth, fit, bench, measure, check, regen, predict, suggest, auto, preview, report, list_parts, cite, doctor
):  # fmt: skip
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error of the user's is one sentence on stderr."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with _trusting(words), _notes_as_lines(), _one_interrupt() as interrupts:
            _run(arguments, words, interrupts)
    except (click.Abort, KeyboardInterrupt):
        _stop("interrupted; the same command with --resume goes on", INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _stop(" ".join(error.format_message().split()) + where, 2)
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), 2)
    except Exception as error:
        found = of_machine(error) if not hasattr(error, "exit_code") else (str(error), error.exit_code)
        if found is None:
            raise
        _stop(*found)


def _run(arguments: list[str] | None, words: list[str], interrupts: list[int]) -> None:
    try:
        cli.main(arguments, prog_name="augforge", standalone_mode=False, obj=words)
        sys.stdout.flush()  # a full disk is an error of this command, not of the interpreter's end
    except Exception as error:
        if interrupts:  # a library that was being imported makes an error of its own of it
            raise KeyboardInterrupt from error
        raise


def of_machine(error: Exception) -> tuple[str, int] | None:
    """A sentence for what the system, torch or safetensors raised, and the exit code; None for a bug of ours."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _MEMORY):
        return "there is not enough memory for this; expected fewer or smaller pictures, or a smaller batch", 4
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename!r}: " if error.filename else ""
        code = 4 if error.errno in _LACKS else 2
        return f"{where}{error.strerror}{'; --resume goes on once there is more' if code == 4 else ''}", code
    if isinstance(error, RecursionError):
        return "something that was given has too many parts inside of each other; expected fewer", 2
    if type(error).__module__.startswith("safetensors"):
        full = "os error 28" in text or "os error 122" in text
        return f"a .safetensors file cannot be read or written ({text})", 4 if full else 2
    return None


_LACKS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
_MEMORY = ("cannot allocate memory", "can't allocate memory", "not enough memory", "out of memory", "bad_alloc",
           "failed to map segment")  # fmt: skip


def _trusting(words: list[str]) -> AbstractContextManager[None]:
    """Whatever is named as "module:Class" in the command may be imported while it runs, and nothing else."""
    if not any(":" in word for word in words):
        return nullcontext()  # and nothing slow is imported for --help
    from augforge.parts.plugins import trusting

    return trusting(*(word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in words))


@contextmanager
def _notes_as_lines() -> Iterator[None]:
    """Every note is one line on stderr; other warnings are shown as they were."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if issubclass(category, Note):
                click.echo(f"note: {message}", err=True)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.simplefilter("default", Note)
        warnings.showwarning = show
        yield


@contextmanager
def _one_interrupt() -> Iterator[list[int]]:
    """The first Ctrl-C ends the command, and no other one disturbs how it ends.

    One that comes while Python runs a callback, as importing does, is lost there: it is raised once more. Gives a list
    of the signals that came.
    """
    came: list[int] = []
    usual, usual_hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def stop(number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        came.append(number)
        raise KeyboardInterrupt

    def lost(error: Any) -> None:
        if error.exc_type is not KeyboardInterrupt:
            usual_hook(error)
            return
        signal.signal(signal.SIGINT, stop)
        again = threading.Timer(0.02, _thread.interrupt_main)
        again.daemon = True
        again.start()

    signal.signal(signal.SIGINT, stop)
    sys.unraisablehook = lost
    try:
        yield came
    finally:
        sys.unraisablehook = usual_hook
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, usual)


def _stop(sentence: str, code: int) -> None:
    try:
        sys.stdout.flush()
    except OSError:  # it cannot be written; what is left in it goes nowhere, or the interpreter's end would fail too
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if len(sentence) > _LONGEST:  # it quotes something whose middle nobody reads
        sentence = f"{sentence[: _LONGEST * 4 // 5]} ... {sentence[-_LONGEST // 6 :]}"
    click.echo(f"augforge: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
