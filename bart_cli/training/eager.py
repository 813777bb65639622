"""Methods of torch's optimizers without the wrappers that import the compiler.

torch wraps some methods of `Optimizer` so that a compiled function does not trace them. The first
call of a wrapper imports `torch._dynamo`: two seconds in each process, although this package
compiles the model at most, never the optimizer.
"""

from __future__ import annotations

import inspect

import torch


class EagerOptimizer(torch.optim.Optimizer):
    """An optimizer whose bookkeeping imports nothing."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(EagerOptimizer, torch.optim.AdamW):
    """AdamW of torch, with the same updates."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # type: ignore[assignment]
