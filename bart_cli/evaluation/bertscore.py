"""BERTScore (Zhang et al. 2020): similarity of token vectors from a BERT-like encoder.

In: summaries and their references. Out: F1 of each in percent, without rescaling and without IDF
weights, equal to the `bert-score` package. That package fails on local models whose tokenizer sets
no maximum length, so the encoder is run here with transformers.

Shapes: B texts, T tokens, D width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bart_cli.errors import BartError, UsageError, first_line
from bart_cli.extras import require

# Layers that correlate best with human judgments, as chosen by the authors of BERTScore.
LAYERS = {
    "albert-base-v2": 9,
    "bert-base-cased": 9,
    "bert-base-multilingual-cased": 9,
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "deberta-large-mnli": 18,
    "deberta-xlarge-mnli": 40,
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
BATCH = 32  # texts


class BertScore:
    """An encoder, and the scores that it gives.

    Args:
        name: hub id or folder.
        layer: hidden layer of the vectors to compare; None: the one in LAYERS.

    Attributes:
        signature: model, layer and versions, in the style of sacrebleu.
    """

    def __init__(self, name: str, layer: int | None, device: torch.device) -> None:
        require("evaluation.metrics=bertscore", "bertscore")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        layer = LAYERS.get(Path(name).name) if layer is None else layer
        if layer is None:
            raise UsageError(
                f"bertscore_model={name}: the layer to compare is not known for this model",
                hint="Pass --set evaluation.bertscore_layer=N (about two thirds of its layers).",
            )
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
            model: Any = transformers.AutoModel.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise BartError(
                f"bertscore_model={name} cannot be loaded: {first_line(error)}",
                hint="Pass --set evaluation.bertscore_model=FOLDER with an encoder for "
                "transformers.",
            ) from None
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        depth = model.config.num_hidden_layers
        if layer > depth:
            raise UsageError(f"bertscore_layer={layer}: {name} has {depth} layers")
        # The first positions of RoBERTa are reserved for padding.
        positions = getattr(model.config, "max_position_embeddings", 514)
        self._length = min(self._tokenizer.model_max_length, positions - 2)
        self._model, self._layer, self._device = model.eval().to(device), layer, device
        self.signature = f"bertscore|model:{name}|layer:{layer}|idf:no|rescaled:no"
        self.signature += f"|transformers:{transformers.__version__}"

    def scores(
        self,
        summaries: Sequence[str],
        references: Sequence[Sequence[str]],
        advance: Callable[[int], None] = lambda summaries: None,
    ) -> list[float]:
        """Compute the F1 in percent of each summary with the most similar of its references.

        `advance` is called with the number of summaries scored since the last call.
        """
        scores = []
        for begin in range(0, len(summaries), BATCH):
            part = summaries[begin : begin + BATCH]
            theirs = references[begin : begin + BATCH]
            texts = list(dict.fromkeys([*part, *(text for group in theirs for text in group)]))
            vectors = dict(zip(texts, self._vectors(texts), strict=True))
            for summary, group in zip(part, theirs, strict=True):
                compared = [text for text in group if text.strip() and summary.strip()]
                found = (_f1(vectors[summary], vectors[text]) for text in compared)
                scores.append(100 * max(found, default=0.0))  # 0 if either text is empty
            advance(len(part))
        return scores

    def _vectors(self, texts: Sequence[str]) -> list[Tensor]:
        """Encode each text to unit vectors [T, D]; the first and last are special tokens."""
        # Some tokenizers encode the first word differently unless a space precedes it.
        before = " " if "Roberta" in type(self._tokenizer).__name__ else ""
        whole = [before + text.strip() for text in texts]
        ids = self._tokenizer(whole, truncation=True, max_length=self._length)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: dict[int, Tensor] = {}
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            width = max(len(ids[row]) for row in rows)
            padding = self._tokenizer.pad_token_id or 0
            batch = torch.tensor([ids[row] + [padding] * (width - len(ids[row])) for row in rows])
            mask = torch.tensor([[i < len(ids[row]) for i in range(width)] for row in rows])
            batch, mask = batch.to(self._device), mask.long().to(self._device)
            with torch.inference_mode():
                states = self._model(batch, attention_mask=mask, output_hidden_states=True)
            unit = torch.nn.functional.normalize(states.hidden_states[self._layer], dim=-1).cpu()
            found |= {row: unit[i, : len(ids[row])] for i, row in enumerate(rows)}
        return [found[row] for row in range(len(ids))]


def _f1(summary: Tensor, reference: Tensor) -> float:
    """Match each token with the most similar one of the other text, ignoring special tokens."""
    similarity = summary @ reference.T
    precision = float(similarity.max(1).values[1:-1].mean())
    recall = float(similarity.max(0).values[1:-1].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
