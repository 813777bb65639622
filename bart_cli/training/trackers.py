"""Experiment trackers: send the rows of a run's log to Weights & Biases, MLflow or Trackio.

In: the names in `training.loggers`, the settings and the rows. Out: a run in each tracker.

A thread per tracker sends the rows, so a slow or dead server never delays a step and the other
ranks. A tracker that fails is dropped with a warning.

For each tracker, RUN/trackers.json records the run that a resume continues (`id` and `project`),
the last step sent of each scalar (`sent`), and whether rows are being sent (`live`). Points that a
tracker has received cannot be deleted. A resume repeats the steps since its checkpoint exactly, so
steps that were already sent are skipped; steps that the tracker missed are sent from metrics.jsonl.
After a rollback, the same steps have different numbers, so it starts a new run in each tracker,
with the history up to its checkpoint.
"""

import contextvars
import io
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bart_cli.config.presets import flatten
from bart_cli.errors import BartError, first_line
from bart_cli.files import strict_json, write_text
from bart_cli.progress import Reporter
from bart_cli.training.metrics import Row, scalars
from bart_cli.training.resume import read_record

FILE = "trackers.json"
PROJECT = "bart"  # default; each tracker has an environment variable for it
CLOSE_SECONDS = 30  # to send the last rows

Kept = dict[str, Any]
Steps = dict[str, int]  # name of a scalar -> step


# Each class below is a run in a tracker; any exception means that the tracker has failed. `kept`
# identifies the run when it is resumed, `place` tells the user where it is, and `has` is the last
# step that the tracker has of a resumed run (None: unknown). `log` sends scalars; `finish` sends
# all remaining rows and the outcome of the training.


class Wandb:
    """Weights & Biases. With WANDB_MODE=offline, it only writes to RUN/wandb."""

    hint = "Run `wandb login`, or set WANDB_MODE=offline."

    def __init__(self, run: Path, kept: Kept | None, settings: Mapping[str, Any]) -> None:
        import wandb

        logging.raiseExceptions = False  # on a full disk, its log would print tracebacks
        self.kept = kept or {
            "id": uuid.uuid4().hex,
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
        }
        self._run = wandb.init(
            dir=str(run),
            name=run.name,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",  # capturing the terminal would break the progress bars
                silent=True,
                finish_timeout=CLOSE_SECONDS,
                finish_timeout_raises=True,
            ),
            **self.kept,
        )
        self._run.config.update(dict(settings), allow_val_change=True)
        self.has = self._run.step - 1 if self._run.resumed else None
        self.place = str(self._run.url)
        if self._run.offline:
            self.place = f"offline; `wandb sync {self._run.settings.sync_dir}` uploads it"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        # wandb drops steps below its current one, such as the step of a postponed validation.
        self._run.log(dict(values), step=max(step, self._run.step))

    def finish(self, outcome: str) -> None:
        self._run.summary["outcome"] = outcome
        self._run.finish(exit_code=int(outcome == "failed"))


class Mlflow:
    """MLflow at MLFLOW_TRACKING_URI; by default, in ./mlflow.db."""

    hint = "Check MLFLOW_TRACKING_URI."
    has: int | None = None

    def __init__(self, run: Path, kept: Kept | None, settings: Mapping[str, Any]) -> None:
        # By default, the client retries an unreachable server for several minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # errors are raised as well
        self._client = MlflowClient()
        if kept is None:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(project)
            experiment = found.experiment_id if found else self._client.create_experiment(project)
            created = self._client.create_run(experiment, run_name=run.name)
            kept = {"id": created.info.run_id, "project": project}
            params = [Param(key, str(value)) for key, value in flatten(settings)]
            for begin in range(0, len(params), 100):  # MLflow's limit per request
                self._client.log_batch(kept["id"], params=params[begin : begin + 100])
        else:
            self._client.update_run(kept["id"], status="RUNNING")
            losses = self._client.get_metric_history(kept["id"], "loss")
            self.has = max((point.step for point in losses), default=-1)
        self.kept = kept
        self.place = f"run {kept['id']} of the experiment {kept['project']}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.kept["id"], metrics=metrics)

    def finish(self, outcome: str) -> None:
        self._client.set_tag(self.kept["id"], "outcome", outcome)
        ends = {"failed": "FAILED", "stopped by": "KILLED"}
        status = next((ends[begin] for begin in ends if outcome.startswith(begin)), "FINISHED")
        self._client.set_terminated(self.kept["id"], status=status)


class Trackio:
    """Trackio, in TRACKIO_DIR or at TRACKIO_SPACE_ID or TRACKIO_SERVER_URL."""

    hint = "Check TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL."
    has: int | None = None

    def __init__(self, run: Path, kept: Kept | None, settings: Mapping[str, Any]) -> None:
        import trackio

        self.kept = kept or {
            "id": f"{run.name}-{uuid.uuid4().hex[:8]}",  # Trackio knows a run only by its name
            "project": os.environ.get("TRACKIO_PROJECT", PROJECT),
        }
        name, project = self.kept["id"], self.kept["project"]
        # In a context of its own: what is current at the end of the process is finished once more.
        with redirect_stdout(io.StringIO()):
            self._run = contextvars.copy_context().run(
                trackio.init, project, name, resume="allow", config=dict(settings), embed=False
            )
        self.place = f"run {name} of the project {project}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, outcome: str) -> None:
        import trackio

        self._run.alert(outcome, level=trackio.AlertLevel.INFO)
        self._run.finish()


Tracker = Wandb | Mlflow | Trackio
KINDS: dict[str, type[Tracker]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


class _Sender:
    """A tracker and the thread that sends to it. Steps up to `sent` of a scalar are skipped."""

    def __init__(self, name: str, tracker: Tracker, sent: Steps, reporter: Reporter) -> None:
        self.name, self.tracker, self.sent = name, tracker, dict(sent)
        self._before, self._reporter, self._outcome = sent, reporter, ""
        self._queue: SimpleQueue[tuple[int, dict[str, float]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def send(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the scalars that the tracker does not have yet."""
        news = {name: v for name, v in values.items() if step > self._before.get(name, -1)}
        if news and self._thread.is_alive():
            self._queue.put((step, news))

    def close(self, outcome: str) -> None:
        """Send all queued rows, and the outcome."""
        self._outcome = outcome
        self._queue.put(None)
        with redirect_stdout(io.StringIO()):  # trackio prints messages
            self._thread.join(CLOSE_SECONDS + 5)
        if self._thread.is_alive():
            self._reporter.warn(f"{self.name} has not received the last rows: no answer")

    def _work(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                step, values = item
                self.tracker.log(step, values)
                self.sent |= dict.fromkeys(values, step)
            self.tracker.finish(self._outcome)
        except Exception as error:  # a tracker can raise anything; it must not stop the training
            self._reporter.warn(f"{self.name} failed and gets no more rows: {first_line(error)}")


class Trackers:
    """All trackers of a run, on rank 0.

    Args:
        rows: rows of the log so far, including those after `step`.
        step: step of the checkpoint to resume from.
        fresh: start new runs in the trackers.
    """

    def __init__(
        self,
        run: Path,
        names: Sequence[str],
        settings: Mapping[str, Any],
        rows: Sequence[Row],
        step: int,
        reporter: Reporter,
        *,
        fresh: bool,
    ) -> None:
        self._path, self._reporter = run / FILE, reporter
        self._state: dict[str, Kept] = {} if fresh else read_record(self._path)
        self._senders: list[_Sender] = []
        reached = {name: int(row["step"]) for row in rows for name in scalars(row)}
        for name in dict.fromkeys(names):
            entry = self._state.get(name, {})
            sent: Steps = entry.pop("sent", {})
            killed = entry.pop("live", False)
            if killed:  # before the last steps were recorded
                sent = {n: max(sent.get(n, -1), reached.get(n, -1)) for n in sent | reached}
            kind = KINDS[name]
            try:
                tracker = kind(run.resolve(), entry or None, settings)
            except Exception as error:  # a tracker can raise anything
                if not entry:
                    raise BartError(
                        f"cannot start {name}: {first_line(error)}",
                        hint=f"{kind.hint} Or remove {name} from training.loggers.",
                    ) from error
                reporter.warn(f"training without {name}: {first_line(error)}")
                self._state[name] = entry | {"sent": sent}
                continue
            reporter.info(f"{name}: {tracker.place}")
            if killed and tracker.has is not None:  # later rows were lost in the queue
                sent = {n: min(last, tracker.has) for n, last in sent.items()}
            self._state[name] = tracker.kept | {"sent": sent, "live": True}
            self._senders.append(_Sender(name, tracker, sent, reporter))
        self._save()
        for row in rows:
            if row["step"] <= step:
                self.log(row)

    def log(self, row: Row) -> None:
        """Send a row of the log."""
        for sender in self._senders:
            sender.send(int(row["step"]), scalars(row))

    def close(self, outcome: str) -> None:
        """Send all queued rows and the outcome to every tracker."""
        for sender in self._senders:
            sender.close(outcome)
            self._state[sender.name] = sender.tracker.kept | {"sent": sender.sent}
        try:
            self._save()
        except OSError as error:  # usually a full disk, which is already being reported
            self._reporter.warn(f"cannot write {self._path}: {error.strerror}")

    def _save(self) -> None:
        if self._state:
            write_text(self._path, strict_json(self._state, indent=2) + "\n")
