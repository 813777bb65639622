"""Export the forward pass as an ONNX graph, with dynamic batch size and lengths.

In: the contents of an export. Out: `model.onnx` (input_ids, attention_mask, decoder_input_ids ->
logits), with the weights of large models in `model.onnx.data`; configuration and tokenizer.
"""

# Legend: B batch, S source, T target, V vocabulary.

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from bart_cli.export.contents import Comparison, Contents, require_equal
from bart_cli.model import hf_config
from bart_cli.model.bart import Bart
from bart_cli.model.formats import write_json

NAME = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids")
EMBEDDED = 2**31 - 2**27  # bytes of weights to store in the graph: the format allows 2 GB in all


class Forward(nn.Module):
    """Logits under teacher forcing, without a cache."""

    def __init__(self, bart: Bart) -> None:
        super().__init__()
        self.bart = bart

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> Tensor:
        """[B, S], [B, S] (1 at real tokens), [B, T] -> [B, T, V]."""
        mask_BS = attention_mask.bool()
        memory_BSD = self.bart.encode(input_ids, mask_BS)
        return self.bart.logits(self.bart.decode(decoder_input_ids, memory_BSD, mask_BS))


def write_onnx(folder: Path, contents: Contents) -> Comparison:
    """Export a model, and compare the logits of ONNX Runtime on two other shapes."""
    import onnxruntime

    model, positions = contents.model, contents.model.config.max_position_embeddings
    forward = Forward(model).eval()
    size = sum(parameter.nbytes for parameter in model.parameters())
    batch, source, target = (
        torch.export.Dim(name, max=largest)
        for name, largest in (("batch", 2**16), ("source", positions), ("target", positions))
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            forward,
            _inputs(model, 2, 6, 4),
            folder / NAME,
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamo=True,
            external_data=size > EMBEDDED,
            dynamic_shapes=({0: batch, 1: source}, {0: batch, 1: source}, {0: batch, 1: target}),
            verbose=False,
        )
    write_json(folder / "config.json", hf_config.to_hf(model.config))
    decoding = hf_config.generation_to_hf(model.config, contents.generation)
    write_json(folder / "generation_config.json", decoding)
    contents.tokenizer.save(folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / NAME, options)
    difference = 0.0
    for shape in ((1, min(33, positions), 1), (3, 9, min(17, positions))):
        inputs = _inputs(model, *shape)
        feed = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)}
        (found,) = session.run(["logits"], feed)
        with torch.inference_mode():
            expected = forward(*inputs)
        difference = max(difference, require_equal(torch.from_numpy(found), expected))
    return Comparison("ONNX Runtime", difference)


def _inputs(model: Bart, batch: int, source: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random ids; row `i` of the source ends with `i` padding tokens."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.vocab_size
    source_BS = torch.randint(vocabulary, (batch, source), generator=generator)
    target_BT = torch.randint(vocabulary, (batch, target), generator=generator)
    lengths_B1 = torch.arange(source, source - batch, -1)[:, None]
    mask_BS = torch.arange(source) < lengths_B1
    return source_BS, mask_BS.long(), target_BT
