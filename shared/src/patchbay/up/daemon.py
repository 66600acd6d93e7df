"""supervisord, asking to be ended when `up` is killed."""

from __future__ import annotations

import os
import sys

from supervisor.supervisord import main

from patchbay.parent import PARENT, die_with_parent

if __name__ == "__main__":
    die_with_parent()
    os.environ[PARENT] = str(os.getpid())  # for those that it starts
    sys.argv[0] = "supervisord"
    main()
