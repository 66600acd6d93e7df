"""supervisord, asking to be ended when `up` is killed."""

from __future__ import annotations

import sys

from supervisor.supervisord import main

from patchbay.parent import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    sys.argv[0] = "supervisord"
    main()
