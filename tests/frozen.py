"""Exclude all objects so far from garbage collection: imported modules are not garbage.

Each forked command would visit them again and again. Imported last by the server of `command.py`.
"""

import atexit
import gc

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # else, native modules report their objects as leaks at the exit
