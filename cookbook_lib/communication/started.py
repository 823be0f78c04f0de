"""`python -m cookbook_lib.communication.started`: the program of a rank that `launch` started.

It runs one function, whose result or error it tells, and ends with the process that started it.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module

from cookbook_lib.communication.member import member, said


def end_with(parent: int) -> None:
    """End this process with its parent, however that ends: by the kernel's word on Linux.

    Elsewhere by the end of standard input, which the parent holds open; a stopped process does not
    see that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)
        if os.getppid() != parent:  # it was gone before the line above
            os._exit(1)
        return

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run(task: str, parent: int) -> None:
    """Run "module:function" as a rank, and tell its result; `parent` is the process to end with."""
    end_with(parent)
    me = member(float(os.environ["COOKBOOK_LIMIT"]))
    assert me.folder
    try:
        module, _, name = task.partition(":")
        function: Callable = getattr(import_module(module), name)
        result = function(me, **json.loads((me.folder / "arguments").read_text()))
        me.tell(result=result)
    except Exception as error:
        when = me.failed_at or time.monotonic()
        wrong = isinstance(error, ValueError)
        me.tell(error=said(error), operation=me.operation, wrong=wrong, failed_at=when)
        raise


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
