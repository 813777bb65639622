"""`generate`: source ids in, hypotheses out, in the order of the sources.

Articles of similar length are decoded in one batch. Results do not depend on the batch. Articles
whose search is over are removed from it.
"""

from collections.abc import Sequence

import numpy as np
import torch

from bart_cli.config.generation import GenerationConfig, check_ids
from bart_cli.data.batch import micro_batches
from bart_cli.errors import BartError, UsageError
from bart_cli.inference.engine import Engine
from bart_cli.inference.running import Hypothesis as Hypothesis
from bart_cli.inference.running import RunningBatch
from bart_cli.inference.sampling import NotFiniteError
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while decoding. There is one list per source, empty if it was not decoded."""

    def __init__(self, results: list[list[Hypothesis]]) -> None:
        super().__init__()
        self.results = results


@torch.inference_mode()
def generate(
    model: Engine | Bart,
    sources: Sequence[Sequence[int]],
    generation: GenerationConfig,
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    reporter: Reporter | None = None,
) -> list[list[Hypothesis]]:
    """Decode every source: `return_sequences` hypotheses each, best first.

    Ctrl-C raises Interrupted, which carries the results so far.

    Args:
        model: an engine, or a model to build one from for this call.
        sources: token ids including <s> and </s>.
        batch_size: maximum number of articles per batch.
        max_tokens: maximum number of source tokens per batch, including padding.
    """
    positions = model.config.max_position_embeddings
    longest = max((len(source) for source in sources), default=0)
    if longest > positions:
        raise UsageError(f"a source of {longest} tokens exceeds the model's {positions} positions")
    if problem := check_ids(generation, model.config.vocab_size, positions):
        raise UsageError(problem)
    was_training = isinstance(model, Bart) and model.training
    engine = Engine(model) if isinstance(model, Bart) else model
    results: list[list[Hypothesis]] = [[] for _ in sources]
    lengths = np.array([len(source) for source in sources], dtype=np.int64)
    with (reporter or Reporter()).task("decode", total=len(sources), unit="articles") as task:
        for chosen in micro_batches(lengths, batch_size, max_tokens):
            try:
                batch = RunningBatch[int](engine, generation)
                batch.join({int(i): sources[i] for i in chosen})
                while batch:
                    for i, hypotheses in batch.step().items():
                        results[i] = hypotheses
            except NotFiniteError:
                raise BartError(
                    f"{engine.name}: scores are not finite (NaN)",
                    hint="Use --precision fp32 or bf16. If it already is, the weights themselves "
                    "hold NaN or infinity: take another checkpoint, or train in bf16 or fp32.",
                ) from None
            except KeyboardInterrupt:
                raise Interrupted(results) from None
            task.advance(len(chosen))
    if isinstance(model, Bart):
        model.train(was_training)
    return results
