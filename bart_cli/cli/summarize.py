"""`bart summarize`."""

from __future__ import annotations

from typing import Annotated

import typer

from bart_cli.cli.console import make_reporter, out, print_json
from bart_cli.cli.generation import (
    BatchSizeOption,
    BeamsOption,
    DecodingPrecisionOption,
    DeviceOption,
    EarlyStoppingOption,
    LengthPenaltyOption,
    MaxLengthOption,
    MaxTokensOption,
    MinLengthOption,
    NoRepeatOption,
    SampleOption,
    SampleSeedOption,
    SequencesOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    decoding_options,
)
from bart_cli.cli.options import JsonOption

DEFAULT_MODEL = "facebook/bart-large-cnn"


def command(
    files: Annotated[
        list[str], typer.Argument(help="Text files or folders; - for standard input.")
    ],
    model: Annotated[
        str, typer.Option(help="Run, model folder or hub id.", show_default=True)
    ] = DEFAULT_MODEL,
    batch_size: BatchSizeOption = None,
    max_tokens: MaxTokensOption = None,
    precision: DecodingPrecisionOption = None,
    device: DeviceOption = None,
    beams: BeamsOption = None,
    length_penalty: LengthPenaltyOption = None,
    min_length: MinLengthOption = None,
    max_length: MaxLengthOption = None,
    no_repeat_ngram: NoRepeatOption = None,
    early_stopping: EarlyStoppingOption = None,
    return_sequences: SequencesOption = None,
    sample: SampleOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SampleSeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Summarize text.

    Each file is one text. The decoding settings are those that the model was saved with, unless
    options say otherwise.

    [bold]bart summarize article.txt --model runs/finetune[/bold]
    """
    from bart_cli.config.presets import load_config
    from bart_cli.config.run import EvaluateConfig
    from bart_cli.inference.inputs import read_documents
    from bart_cli.inference.load import load_for_inference
    from bart_cli.inference.summarizer import Summarizer

    documents = read_documents(files)
    changes = decoding_options(
        beams=beams,
        length_penalty=length_penalty,
        min_length=min_length,
        max_length=max_length,
        no_repeat_ngram=no_repeat_ngram,
        early_stopping=early_stopping,
        return_sequences=return_sequences,
        sample=sample,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    evaluation = load_config(
        EvaluateConfig,
        options={
            "evaluation.precision": precision,
            "evaluation.device": device,
            "evaluation.batch_size": batch_size,
            "evaluation.max_tokens": max_tokens,
        },
    ).evaluation
    reporter = make_reporter()
    loaded = load_for_inference(model, evaluation.precision, device=evaluation.device)
    saved = loaded.generation.model_dump() if loaded.generation else {}
    base = load_config(
        EvaluateConfig,
        options=decoding_options(**saved) | changes,
    )
    summarizer = Summarizer(loaded, base.generation)
    summaries = summarizer.summarize(
        [document.text for document in documents],
        batch_size=evaluation.batch_size,
        max_tokens=evaluation.max_tokens,
        reporter=reporter,
    )
    for document, summary in zip(documents, summaries, strict=True):
        if summary.cut:
            reporter.warn(
                f"{document.name} has {summary.source_tokens:,} tokens; the model reads the first "
                f"{summary.used_tokens:,}, the rest is not in the summary"
            )
    if as_json:
        print_json([{"file": d.name} | vars(s) for d, s in zip(documents, summaries, strict=True)])
        return
    for document, summary in zip(documents, summaries, strict=True):
        if len(documents) > 1:
            out.print(f"[bold]{document.name}[/bold]", soft_wrap=True)
        for text in (summary.text, *summary.others):
            out.print(text, markup=False, soft_wrap=True)
