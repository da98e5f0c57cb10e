"""The command line: `ptune COMMAND`.

Each subcommand has a file of its own. Heavy libraries are imported when a command runs, so that help is fast.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from cyclopts import CycloptsError, ValidationError

from ptune.cli.app import make_app
from ptune.cli.config_file import apply_config_file
from ptune.cli.options import SETTINGS
from ptune.cli.spelling import spell
from ptune.cli.terminal import log_to_stderr, unknown_error, wrong_usage, wrong_values
from ptune.cli.tokens import join_texts
from ptune.errors import PtuneError, cut, printable

# Silences other libraries: ptune reports their errors and warnings itself, once each.
_QUIET = {
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Wrong input ends the process with exit code 2 and one message on stderr. An error that ptune does not know ends it
    with exit code 1 and one message, or with the whole traceback if PTUNE_TRACEBACK is set.

    Args:
        arguments: the command and its options; those of the process by default.
    """
    _prepare_streams()
    tokens = join_texts(sys.argv[1:] if arguments is None else arguments)
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    log_to_stderr()
    app = make_app()
    try:
        with _sigterm_interrupts():
            apply_config_file(app, tokens)
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
    except ValidationError as err:
        _fail(wrong_values(err))
    except PtuneError as err:
        _fail(spell(str(err), SETTINGS))
    except CycloptsError as err:
        _fail(wrong_usage(err))
    except BrokenPipeError:  # the reader of the pipe, such as `head`, has stopped reading
        _discard_output()
        sys.exit(1)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            _unknown(err)
        _discard_output()
        _fail(f"the output cannot be written: {err.strerror}")
    except _TerminatedError:  # end by the signal after all, which is no failure for systemd and others
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        logging.getLogger("ptune").warning("interrupted")
        sys.exit(130)
    except Exception as err:
        _unknown(err)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM has come."""


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM unwind a command as Ctrl-C does, so that half-written files are removed.

    Training and the server have their own handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare_streams() -> None:
    """Make output possible whatever the terminal's encoding, and if the caller has closed a stream."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send what stdout still holds to nowhere: Python writes it at the end, and would report the error again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unknown(err: Exception) -> None:
    """Report an error that ptune does not know."""
    if os.environ.get("PTUNE_TRACEBACK"):
        raise err
    _fail(unknown_error(err), 1)


def _fail(message: str, code: int = 2) -> None:
    print(f"ptune: error: {printable(cut(message))}", file=sys.stderr)
    sys.exit(code)
