"""``python -m gsprune.cli``: the same as the command ``gsprune``."""

import sys

from gsprune.cli import main

sys.exit(main())
