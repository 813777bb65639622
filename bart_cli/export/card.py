"""The model card of an export: README.md, with the metadata of the Hugging Face hub.

In: the history of a model. Out: the text of its card. A card ends with a digest of its text, which
shows whether a person has edited it.
"""

import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import bart_cli
from bart_cli.config.commands import ExportConfig, ExportFormat
from bart_cli.config.generation import ROUGE
from bart_cli.config.presets import flatten
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.export.contents import Contents
from bart_cli.export.history import DataSet, History
from bart_cli.extras import CLONE

NAME = "README.md"
SIGNATURE = re.compile(rb"\n<!-- bart export: ([0-9a-f]{64}) -->\n\Z")
# Format -> its library, unless that has the same name.
LIBRARIES: dict[ExportFormat, str] = {"huggingface": "transformers", "reference": "pytorch"}
# Name in metrics.json -> type and name of the metric in the metadata.
METRICS = {name: ("rouge", shown) for name, shown in ROUGE.items()} | {
    "bleu": ("sacrebleu", "BLEU"),
    "bertscore": ("bertscore", "BERTScore F1"),
}
LEAD = "lead-3"  # the baseline of the table
# Sections of `config.yaml` to show; the architecture is in config.json.
SHOWN = ("data.", "denoising.", "optimizer.", "schedule.", "training.")
PATHS = ("data.path", "data.validation_path", "data.tokenizer")
USE: dict[ExportFormat, str] = {
    "huggingface": """\
```bash
bart summarize article.txt --model {name}
```

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForSeq2SeqLM.from_pretrained("{name}")
inputs = tokenizer(article, truncation=True, max_length={positions}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```
""",
    "reference": """\
`final_step.ckpt` is a state dict for NVIDIA's BART for PyTorch. `bart summarize --model FILE` reads
the downloaded file, too.
""",
    "ctranslate2": """\
```python
import ctranslate2
import huggingface_hub
import transformers

folder = huggingface_hub.snapshot_download("{name}")
translator = ctranslate2.Translator(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
ids = tokenizer.encode(article, truncation=True, max_length={positions})
found = translator.translate_batch([tokenizer.convert_ids_to_tokens(ids)]{decoding})
tokens = found[0].hypotheses[0]
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(tokens), skip_special_tokens=True))
```
""",
    "onnx": """\
`model.onnx` is the whole forward pass under teacher forcing: `input_ids` and `attention_mask`
(batch x source), `decoder_input_ids` (batch x target) -> `logits` (batch x target x vocabulary). It
has no cache and does not search: append a token to `decoder_input_ids`, and run it again.

```python
import huggingface_hub
import onnxruntime

folder = huggingface_hub.snapshot_download("{name}")
session = onnxruntime.InferenceSession(folder + "/model.onnx")
```
""",
}


def write(
    history: History, contents: Contents, config: ExportConfig, name: str, layout: str
) -> str:
    """Return the text of the card of the repository or folder `name`, without its digest."""
    parameters = sum(parameter.numel() for parameter in contents.model.parameters())
    use = USE[config.format].format(
        name=config.push or f"USER/{name}",
        positions=contents.model.config.max_position_embeddings,
        decoding=_ctranslate2_decoding(contents),
    )
    parts = [
        f"---\n{_metadata(history, config, name)}---\n",
        f"# {name.rpartition('/')[2]}\n",
        f"{_about(history)} {parameters / 1e6:,.1f} million parameters in {contents.dtype}, "
        f"{layout} layout.\n",
        "" if history.pretrained_only else f"## Use\n\n{use}",
        _training(history),
        *_evaluations(history),
        "## Limits\n\n"
        + (
            "The model reconstructs corrupted text. Fine-tune it before summarizing.\n"
            if history.pretrained_only
            else "Summaries can contain statements that the article does not support. Check names "
            "and numbers.\n"
        ),
        f"## Versions\n\nExported by {program()}.\n",
    ]
    return "\n".join(part for part in parts if part)


def sign(text: str) -> str:
    return f"{text}\n<!-- bart export: {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_edited(content: bytes) -> bool:
    found = SIGNATURE.search(content)
    return not found or hashlib.sha256(content[: found.start()]).hexdigest() != found[1].decode()


def program() -> str:
    """Return name and version of this program, and the git revision of a clone."""
    name = f"bart {bart_cli.__version__}"
    if not (CLONE / ".git").exists():
        return name
    describe = ["git", "-C", str(CLONE), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(
            [*describe, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return name
    return f"{name} (git revision {found.stdout.strip()})"


def _metadata(history: History, config: ExportConfig, name: str) -> str:
    """Return the YAML block. The hub refuses local paths in it."""
    from huggingface_hub import EvalResult, ModelCardData

    data = history.data()
    results = [
        EvalResult(
            task_type="summarization",
            task_name="Summarization",
            dataset_type=tested.hub_id or re.sub(r"[^\w.-]+", "-", tested.name),
            dataset_name=tested.name,
            dataset_config=tested.configuration,
            dataset_split=evaluation["settings"].get("split"),
            metric_type=METRICS[metric][0],
            metric_name=METRICS[metric][1],
            metric_value=round(value, 2),
        )
        for evaluation in history.evaluations
        for tested in [history.data_set(evaluation["settings"]["data"])]
        for metric, value in _values(evaluation).items()
        if metric in METRICS
    ]
    library = LIBRARIES.get(config.format, config.format)
    return yaml.safe_dump(
        ModelCardData(
            language=history.languages() or None,
            library_name=library,
            pipeline_tag="fill-mask" if history.pretrained_only else "summarization",
            tags=["bart", *([] if config.format in LIBRARIES else [library])],
            base_model=history.base_model(),
            datasets=[data.hub_id] if data and data.hub_id else None,
            metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
            model_name=name.rpartition("/")[2] if results else None,
            eval_results=results or None,
        ).to_dict(),
        sort_keys=False,
        allow_unicode=True,
    )


def _about(history: History) -> str:
    base = history.base_model()
    if not history.settings:
        return f"A BART model, converted from {base}:" if base else "A BART model:"
    data = history.data()
    kind = "pre-trained by denoising" if history.pretrained_only else "fine-tuned to summarize"
    return (
        f"A BART model, {kind}"
        + (f", on {_link(data)}" if data else "")
        + (f", from [{base}](https://huggingface.co/{base}):" if base else ":")
    )


def _training(history: History) -> str:
    """List the settings of the run that differ from the defaults, except local paths."""
    if not history.settings:
        return ""
    kind = PretrainConfig if history.pretrained_only else FinetuneConfig
    defaults = dict(flatten(kind().model_dump(mode="json")))
    changed: dict[str, Any] = {}
    for key, value in flatten(history.settings):
        own = key.startswith(SHOWN) and key not in PATHS and value is not None
        if own and value != defaults.get(key) and not _names_a_path(value):
            section, _, name = key.partition(".")
            changed.setdefault(section, {})[name] = value
    if not changed:
        return "## Training\n\nAll settings are the defaults of `bart`.\n"
    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    return f"## Training\n\nSettings that differ from the defaults:\n\n```yaml\n{text}```\n"


def _evaluations(history: History) -> Iterator[str]:
    """Yield a table for each evaluation."""
    for evaluation in history.evaluations:
        made = evaluation["settings"]
        split = f"{name} split of " if (name := made.get("split")) else ""  # of a file: all of it
        heading = "## Evaluation\n\n" if evaluation is history.evaluations[0] else ""
        baselines = evaluation["baselines"].get(LEAD, {})
        data = _link(history.data_set(made["data"]))
        lines = [
            f"{heading}{split.capitalize()}{data}, "
            f"{evaluation['articles']:,} articles, decoded in "
            f"{made.get('precision', 'fp32')}. ROUGE is F1 in percent"
            + (", with stemming" if made.get("stemmer") else "")
            + f"; 95% intervals are bootstrapped; {LEAD} takes the first sentences.",
            "",
            f"| metric | model | 95% interval | {LEAD} |",
            "|---|---|---|---|",
        ]
        for metric, value in _values(evaluation).items():
            low, high = evaluation["interval"].get(metric, (None, None))
            interval = "" if low is None else f"{low:.2f} - {high:.2f}"
            lead = evaluation["bleu"].get(LEAD) if metric == "bleu" else baselines.get(metric)
            shown = "" if lead is None else f"{lead:.2f}"
            label = METRICS[metric][1] if metric in METRICS else metric
            lines.append(f"| {label} | {value:.2f} | {interval} | {shown} |")
        yield "\n".join(lines) + "\n"


def _values(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean scores of the model, in the order of the table."""
    bleu = {"bleu": evaluation["bleu"]["model"]} if evaluation.get("bleu") else {}
    return evaluation["rouge"] | bleu | (evaluation.get("metrics") or {}).get("model", {})


def _link(data: DataSet) -> str:
    if data.hub_id is None:
        return f"`{data.name}`"
    return f"[{data.name}](https://huggingface.co/datasets/{data.hub_id})"


def _names_a_path(value: object) -> bool:
    return isinstance(value, str) and ("/" in value or Path(value).exists())


def _ctranslate2_decoding(contents: Contents) -> str:
    """Return the model's decoding settings as arguments of `translate_batch`."""
    saved = contents.generation
    if saved is None:
        return ""
    first = ""
    if saved.forced_bos:
        own = saved.forced_bos_token
        start = contents.model.config.bos_token_id if own is None else own
        token = contents.tokenizer.decode([start], skip_special=False)
        first = f"\n    target_prefix=[[{token!r}]],"
    return (
        f",{first}\n    beam_size={saved.beams},\n    length_penalty={saved.length_penalty},\n"
        f"    no_repeat_ngram_size={saved.no_repeat_ngram},\n"
        f"    max_decoding_length={saved.max_length - 1},\n"
    )
