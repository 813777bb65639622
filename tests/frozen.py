"""Make commands cheaper, here and in the commands that are forked: imported last by their server.

Imported modules are excluded from garbage collection: each command would visit them again and
again. Nothing is synchronized with the disk: tests kill processes, never the machine.
"""

import atexit
import gc
import os

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # else, native modules report their objects as leaks at the exit
os.fsync = lambda descriptor: None
