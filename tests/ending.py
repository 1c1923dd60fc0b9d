"""How a forked process is a program: what it prints, and how it ends."""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn, TextIO


def run(program: Callable[[], object]) -> NoReturn:
    """Run a program in this process, which ends with it as a started one does."""
    code: object = 1
    try:
        sys.stdout, sys.stderr = text(1), text(2)
        program()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def text(number: int) -> TextIO:
    """What is printed to a file number, line by line."""
    return os.fdopen(number, "w", 1, errors="backslashreplace", closefd=False)
