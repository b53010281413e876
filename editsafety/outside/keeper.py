"""The keeper: a small process that removes a folder, and ends what was started in it, when its owner is gone.

The owner may be killed in the middle of anything, so it cannot do this by itself. It holds the other end of standard
input, and writes a line for each group of processes that it starts (`+123`) and that has ended (`-123`); when that end
is closed, in whatever way, the keeper acts. It is run by its path, with Python alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

TRIES = 20  # to remove a folder into which something that was killed may still be writing


def main() -> None:
    """Wait until the owner is gone, then end the groups that are left and remove the folder `sys.argv[1]`."""
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        (groups.add if line.startswith(b"+") else groups.discard)(int(line[1:]))
    for group in groups:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    folder = Path(sys.argv[1])
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.05)


if __name__ == "__main__":
    main()
