"""`bart compare`, also available as `bart evaluate compare`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import ConsoleReporter, print_json, print_rows, say
from bart_cli.cli.options import (
    ConfigOptions,
    JsonOption,
    PairOptions,
    ScoringOptions,
    keys,
    option,
    option_groups,
)
from bart_cli.config.run import EvaluateConfig
from bart_cli.errors import UsageError
from bart_cli.extras import require

PREDICTIONS = "Predictions: an evaluation folder, JSON lines, or text with one summary per line."


@option_groups
def command(
    a: Annotated[Path, typer.Argument(help=PREDICTIONS, metavar="A")],
    b: Annotated[Path, typer.Argument(help=PREDICTIONS, metavar="B")],
    data: Annotated[
        Path | None,
        option(
            "Article-summary pairs with the references. Default: the references that "
            "`bart evaluate` wrote with the predictions."
        ),
    ] = None,
    pairs: PairOptions = PairOptions(),
    scoring: ScoringOptions = ScoringOptions(),
    seed: Annotated[int, option("Seed for resampling.", min=0)] = 0,
    settings: ConfigOptions = ConfigOptions(),
    as_json: JsonOption = False,
) -> None:
    """Compare two sets of predictions and test whether they differ significantly.

    Uses the paired bootstrap (Koehn 2004): both are scored on the same random resamples of the
    articles. p is the fraction of resamples in which the better one is not ahead; below 0.05, the
    difference is significant.

    [bold]bart compare runs/a/evaluation-test runs/b/evaluation-test[/bold]
    """
    from bart_cli.evaluation.compare import common_references, compare_predictions
    from bart_cli.evaluation.predictions import read_predictions

    require("bart compare", "eval")
    config = settings.load(EvaluateConfig, keys(pairs) | keys(scoring) | {"data.path": data})
    evaluation = config.evaluation
    if not evaluation.bootstrap:
        raise UsageError("evaluation.bootstrap=0: a comparison needs resamples")
    first, second = read_predictions(a), read_predictions(b)
    if config.data.path is not None:
        from bart_cli.data.pairs import PairSource

        data_set = PairSource(config.data)
        found = data_set.read(evaluation.split, limit=evaluation.limit, keep_empty=True)
        found.report(ConsoleReporter())
        texts = first.of_pairs(found.pairs, found), second.of_pairs(found.pairs, found)
        references = [list(pair.references) for pair in found.pairs]
    else:
        references = common_references(first, second)
        texts = first.texts, second.texts
    results = compare_predictions(*texts, references, evaluation, seed=seed)
    if as_json:
        counts = {"articles": len(references), "resamples": evaluation.bootstrap, "seed": seed}
        print_json({"a": a, "b": b} | counts | {"metrics": [asdict(result) for result in results]})
        return
    rows = []
    for result in results:
        low, high = result.interval
        scores = f"{result.a:.2f}", f"{result.b:.2f}", f"{result.difference:+.2f}"
        rows.append((result.metric, *scores, f"{low:+.2f} to {high:+.2f}", f"{result.p:.3f}"))
    print_rows(rows, "", "A", "B", "B - A", "95% interval", "p")
    say(
        f"{len(references):,} articles, {evaluation.bootstrap:,} resamples. p: fraction of "
        "resamples in which the better one is not ahead."
    )
