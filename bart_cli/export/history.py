"""The history of a model: its run, training data, base model and evaluations.

In: a run, a folder, a hub id or a checkpoint. Out: a `History`, empty where nothing is recorded.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bart_cli.config.data import LANGUAGES, SummarizationDataConfig
from bart_cli.config.presets import recorded_settings
from bart_cli.data.hub_pairs import HUB_ID
from bart_cli.data.manifest import recorded_source
from bart_cli.data.pairs import PairSource
from bart_cli.errors import BartError
from bart_cli.evaluation.ledger import model_hash
from bart_cli.model.formats import resolve_model

# Hub ids of corpora that `bart download` can also build from their original archives.
CORPORA = {"cnn-dm": ("abisee/cnn_dailymail", "3.0.0"), "xsum": ("EdinburghNLP/xsum", None)}
DATA_URL = re.compile(r"/datasets/([\w.-]+/[\w.-]+)(?:@\S+)?(?: (\S+))?$")
CHAIN = 8  # runs to follow back through `init_from`


@dataclass(frozen=True)
class DataSet:
    """Data of a run or an evaluation. Local files have no hub id and no configuration."""

    name: str
    hub_id: str | None = None
    configuration: str | None = None


@dataclass(frozen=True)
class History:
    """What is recorded about a model."""

    source: str  # the model as given
    folder: Path  # its run, or the model itself without a run
    settings: dict[str, Any] = field(default_factory=dict)  # `config.yaml` of the run
    # `metrics.json` of evaluations of these weights, the newest for each split
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    # names of the folders in it with evaluations of other weights
    others: list[str] = field(default_factory=list)

    @property
    def pretrained_only(self) -> bool:
        """Whether the model was pre-trained, but not fine-tuned to summarize."""
        return self.settings.get("task") == "pretrain"

    def base_model(self) -> str | None:
        """Return the hub id of the initial weights, following `init_from` through local runs."""
        source = self.source.partition("@")[0]  # without the revision
        if not self.settings and _is_hub_id(source, self.folder):
            return source
        settings, folder = self.settings, self.folder
        for _ in range(CHAIN):
            name = settings.get("init_from")
            if not isinstance(name, str):
                return None
            if _is_hub_id(base := name.partition("@")[0], folder):
                return base
            folder, settings = _find_run(Path(name).absolute())
        return None

    def data(self) -> DataSet | None:
        path = self._section("data").get("path")
        return self.data_set(path) if path else None

    def data_set(self, path: str) -> DataSet:
        """Return the data set at a path or with a hub id."""
        recorded = recorded_source(Path(path))
        if found := DATA_URL.search(str(recorded.get("url"))):
            return DataSet(found[1], found[1], found[2])
        if recorded.get("corpus") in CORPORA:
            name, configuration = CORPORA[recorded["corpus"]]
            return DataSet(name, name, configuration)
        if _is_hub_id(path, self.folder) and (parts := HUB_ID.fullmatch(path)):
            return DataSet(parts[1], parts[1], parts[3])
        return DataSet(Path(path).name or path)

    def languages(self) -> list[str]:
        """Return the ISO 639-1 codes in the settings of the run and its evaluations."""
        data = self._section("data")
        stated = [self._section("evaluation").get("language")]
        stated += [str(data.get(f"{side}_language"))[:2] for side in ("source", "target")]
        stated += [evaluation["settings"].get("language") for evaluation in self.evaluations]
        return list(dict.fromkeys(code for code in stated if code in LANGUAGES))

    def articles(self, count: int) -> list[str]:
        """Return the first articles of the run's local data, if possible of the test split."""
        section = self._section("data")
        if not section.get("path") or not Path(section["path"]).exists():
            return []
        try:
            source = PairSource(SummarizationDataConfig.model_validate(section))
            split = next(name for name in ("test", "validation", "train") if name in source.splits)
            pairs = source.read(split, limit=count).pairs
        except (BartError, ValidationError, OSError, StopIteration):
            return []
        return [pair.source for pair in pairs]

    def _section(self, name: str) -> dict[str, Any]:
        section = self.settings.get(name)
        return section if isinstance(section, dict) else {}


def read_history(source: str) -> History:
    """Collect what is recorded about a model."""
    model = resolve_model(source).absolute()
    folder, settings = _find_run(model)
    found: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}
    own, others = None, []
    for path, metrics in _metrics(folder):
        made = metrics["settings"]
        if "model_sha256" not in made:  # predictions from a file
            continue
        own = own or model_hash(str(model))
        if made["model_sha256"] == own:
            key, written = (made["data_sha256"], made["split"]), path.stat().st_mtime
            found[key] = max(found.get(key, (0.0, {})), (written, metrics), key=lambda one: one[0])
        elif path.parent.parent == folder:
            others.append(path.parent.name)
    return History(source, folder, settings, [metrics for _, metrics in found.values()], others)


def _find_run(model: Path) -> tuple[Path, dict[str, Any]]:
    """Return the run at a path, or the run that saved the model there, and its settings."""
    made = model.parents[2] if model.parent.parent.name == "checkpoints" else model.parent
    for folder in (model, made) if model.name in ("model", "best") else (model,):
        settings = recorded_settings(folder)
        if settings.get("task") in ("pretrain", "finetune"):
            return folder, settings
    return model, {}


def _metrics(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the evaluations of any model in a folder and beside it."""
    for path in sorted({*folder.glob("*/metrics.json"), *folder.parent.glob("*/metrics.json")}):
        try:
            metrics = json.loads(path.read_bytes())
            complete = {"rouge", "interval", "baselines", "articles"} <= metrics.keys()
            if complete and isinstance(metrics["settings"], dict):
                yield path, metrics
        except (OSError, ValueError, AttributeError, KeyError):
            continue


def _is_hub_id(name: str, run: Path) -> bool:
    """Whether a name is a hub id rather than a path, here or where the run was started."""
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        return False
    owner = name.partition("/")[0]
    return not Path(owner).exists() and owner not in run.absolute().parts
