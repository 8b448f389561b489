"""Commands that a user can paste into a shell."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def tambur_command(*words: str) -> str:
    """Make the command line that runs ``tambur`` of this installation, in any directory.

    Parameters:
        words: the arguments, unquoted.
    """
    found = shutil.which("tambur")
    ours = Path(sys.executable).with_name("tambur")
    if found is not None and Path(found).resolve() == ours.resolve():
        return shlex.join(["tambur", *words])
    return shlex.join([sys.executable, "-m", "tambur", *words])
