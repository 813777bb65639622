"""A Dask cluster in this process, for tests of what preprocessing writes.

Its start takes milliseconds instead of the seconds of worker processes, which
tests/cli/test_preprocess_processes.py and the first test of tests/unit/data/test_preprocess.py use.
"""

from __future__ import annotations

import functools

from bart_cli.runtime.interrupts import withheld


@functools.cache
def scheduler() -> str:
    """Start the cluster once, and return the address of its scheduler."""
    import dask
    from distributed import LocalCluster

    dask.config.set({"distributed.worker.profile.enabled": False})
    with withheld():  # its threads leave signals to the main thread
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp://",
            dashboard_address="127.0.0.1:0",
        )
    return str(cluster.scheduler_address)
