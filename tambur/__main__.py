"""``python -m tambur`` is ``tambur``."""

import sys

from .cli import main

sys.exit(main())
