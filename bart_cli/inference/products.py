"""Matrix products with weights packed once for the device.

In: a weight [N, D] and a bias [N]. Out: a function [..., D] -> [..., N]. On a CPU with oneDNN the
weights are packed for its kernels. A decoding step multiplies a few rows with every weight of the
decoder, so reading the weights dominates, and the ordinary kernels would repack them every time.
"""

# Legend: M rows, D inputs, N outputs.

import functools
import math
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bart_cli.config.generation import DecodingPrecision
from bart_cli.runtime.precision import onednn_has_bf16

Product = Callable[[Tensor], Tensor]

LARGEST_INT8 = 127


def make_product(weight_ND: Tensor, bias_N: Tensor, *, int8: bool = False) -> Product:
    """Create the fastest available product with a constant weight.

    For `int8`, quantize the weight per output and the input per row; results are fp32.
    """
    if int8:
        return Int8Product(weight_ND, bias_N)
    dtype = weight_ND.dtype
    fast = dtype == torch.float32 or (dtype == torch.bfloat16 and onednn_has_bf16())
    if weight_ND.device.type == "cpu" and has_onednn() and fast:
        return PackedProduct(weight_ND, bias_N)
    return partial(F.linear, weight=weight_ND, bias=bias_N)


def has_onednn() -> bool:
    """Whether this torch has oneDNN's packed products (x86 builds do)."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    )


class PackedProduct:
    """oneDNN's product with a packed weight, in the weight's dtype."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach().contiguous())
        self._bias = bias_N.detach().to(weight_ND.dtype).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N]."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


class Int8Product:
    """Int8 product: the weight has one scale per output, the input one scale per row.

    The rows are *unsigned* bytes with a zero point: processors without AMX have no instruction for
    signed times signed, and oneDNN then falls back to its reference kernel. A row's scale depends
    on that row alone, so results do not depend on the batch.
    """

    def __init__(self, weight_ND: Tensor, bias_N: Tensor) -> None:
        weight = weight_ND.detach().float()
        scale_N = weight.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / LARGEST_INT8
        integers_ND = (weight / scale_N[:, None]).round_().to(torch.int8)
        self._rows = BytesTimesInt8(integers_ND)
        self._scale = scale_N
        self._bias = bias_N.detach().float()

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N] in fp32."""
        rows_MD = x.reshape(-1, x.shape[-1]).float()
        largest_M1 = rows_MD.abs().amax(1, keepdim=True).clamp_(min=1e-30)
        y_MN = self._rows(rows_MD / largest_M1).mul_(self._scale)
        return torch.addcmul(self._bias, y_MN, largest_M1).view(*x.shape[:-1], -1)


class BytesTimesInt8:
    """Rows within [-1, 1], quantized to bytes, times an int8 weight: [M, D] -> [M, N] in fp32.

    With VNNI or AMX, oneDNN multiplies 8-bit rows (zero point 128). Without, both libraries add
    pairs of products in saturating 16 bits (vpmaddubsw), so the rows use 7 bits (zero point 64):
    2 x 127 x 127 fits. There FBGEMM is faster because it packs the weight only once.
    """

    def __init__(self, integers_ND: Tensor) -> None:
        exact = onednn_bytes_are_exact()
        self._levels, self._zero = (127, 128) if exact else (63, 64)
        ones_N = torch.ones(len(integers_ND))
        zeros_N = torch.zeros(len(integers_ND), dtype=torch.int64)
        self._fbgemm = has_fbgemm() and not exact
        if self._fbgemm:
            with warnings.catch_warnings():
                # torch deprecates quantized tensors, but its FBGEMM kernels take nothing else.
                warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
                weight = torch._make_per_channel_quantized_tensor(
                    integers_ND, ones_N.double(), zeros_N, 0
                )
            engine = torch.backends.quantized.engine
            torch.backends.quantized.engine = "fbgemm"
            try:
                self._packed = torch.ops.quantized.linear_prepack(weight, None)
            finally:
                torch.backends.quantized.engine = engine
        else:
            self._packed = torch.ops.onednn.qlinear_prepack(integers_ND, None)
            self._one, self._none = ones_N, zeros_N

    def __call__(self, rows_MD: Tensor) -> Tensor:
        scale, zero = 1.0 / self._levels, self._zero
        if self._fbgemm:
            return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
                rows_MD, scale, zero, self._packed
            )
        bytes_MD = (rows_MD * self._levels).round_().add_(zero).to(torch.uint8)
        return _onednn_int8(bytes_MD, scale, zero, self._packed, self._one, self._none)


def _onednn_int8(
    bytes_MD: Tensor, scale: float, zero: int, packed: Tensor, scale_N: Tensor, zero_N: Tensor
) -> Tensor:
    return torch.ops.onednn.qlinear_pointwise(
        *(bytes_MD, scale, zero, packed, scale_N, zero_N),
        *(None, 1.0, 0, torch.float32, "none", [], ""),
    )


@functools.cache
def onednn_bytes_are_exact() -> bool:
    """Test whether oneDNN sums unsigned times signed bytes in 32 bits on this CPU."""
    rows = torch.full((16, 64), 255, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
    ones, zeros = torch.ones(16), torch.zeros(16, dtype=torch.int64)
    sums = _onednn_int8(rows, 1.0, 0, packed, ones, zeros)
    return bool((sums == 64 * 255 * 127).all())


def has_fbgemm() -> bool:
    """Whether this torch has FBGEMM's int8 product with fp32 in and out."""
    return "fbgemm" in torch.backends.quantized.supported_engines and hasattr(
        torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32"
    )


def measure_products() -> dict[DecodingPrecision, float]:
    """Measure a decoding step's products on this CPU in seconds, by precision; fast kernels only.

    Multiplies 16 rows (4 articles, 4 beams) with 38 million weights in BART-base's feed-forward
    shape, more than a cache holds. Takes the best of five rounds; the precisions alternate.
    """
    drawn_ND = torch.randn(3072, 768)
    weights_ND = [drawn_ND.clone() for _ in range(16)]  # drawing all takes longer than measuring
    rows_MD, bias_N = torch.randn(16, 768), torch.zeros(3072)
    runs: dict[DecodingPrecision, tuple[list[Product], Tensor]] = {
        "fp32": ([make_product(weight, bias_N) for weight in weights_ND], rows_MD)
    }
    if onednn_has_bf16():
        halves = [make_product(weight.bfloat16(), bias_N.bfloat16()) for weight in weights_ND]
        runs["bf16"] = (halves, rows_MD.bfloat16())
    if has_onednn() and hasattr(torch.ops.onednn, "qlinear_prepack"):
        runs["int8"] = ([Int8Product(weight, bias_N) for weight in weights_ND], rows_MD)
    seconds = dict.fromkeys(runs, math.inf)
    with torch.inference_mode():
        for _ in range(5):
            for name, (products, rows) in runs.items():
                start = time.perf_counter()
                for product in products:
                    product(rows)
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
