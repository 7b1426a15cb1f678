"""A process that kills itself at the n-th renaming of a file, as a writer is killed half way."""

import subprocess
import sys

_KILL_AT_RENAMING = """
import os, signal, sys

count, rename = int(sys.argv.pop(1)), os.replace

def replace(source, target):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

os.replace = replace
"""


def status_when_killed(script: str, renamings: int, *arguments: str) -> int:
    """Run a script with arguments until that renaming; the status of its process."""
    command = [sys.executable, "-c", _KILL_AT_RENAMING + script, str(renamings), *arguments]
    return subprocess.run(command, check=False, capture_output=True).returncode
