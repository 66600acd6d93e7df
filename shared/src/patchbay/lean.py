"""Packages without what they import only because it happens to be installed.

A machine has one Patchbay installed, so a unit finds what only others need. Measured, in each unit:
structlog takes 5 MB more where rich is, paho 3 MB for dnspython (which PyMongo brings), PyMongo 3
MB for cryptography (which makes certificates), msgspec 1 MB for typing_extensions. All four say
``try: import``, and do here what they do where it is not installed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
    """Make ``module`` look absent to what is imported meanwhile, unless it is there already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # how Python marks what is not there
    try:
        yield
    finally:
        del sys.modules[module]


with without("typing_extensions"):
    import msgspec as msgspec  # here, since nobody imports it first
