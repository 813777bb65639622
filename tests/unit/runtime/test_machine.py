"""Work that one rank of a machine does for all: done once, shared, nothing left."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import pytest

from bart_cli.errors import BartError
from bart_cli.runtime import machine
from bart_cli.runtime.machine import once_per_machine
from bart_cli.runtime.world import World
from tests.ranks import in_ranks

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
