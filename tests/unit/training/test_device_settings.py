"""Cores of a rank and FLOPs of a step."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bart_cli.model.bart import Bart
from bart_cli.model.losses import linear_cross_entropy
from bart_cli.runtime.cores import parse_cpulist, share_of
from bart_cli.runtime.flops import peak_flops, training_flops
from tests.conftest import tiny_model_config


@given(cores=st.sets(st.integers(0, 200), min_size=8, max_size=64), ranks=st.integers(1, 8))
def test_ranks_near_the_same_cores_share_them(cores: set[int], ranks: int) -> None:
    shares = [share_of(rank, [cores] * ranks) for rank in range(ranks)]
    assert set.union(*shares) == cores
    assert sum(map(len, shares)) == len(cores)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_is_bound_to_the_numa_node_of_its_gpu() -> None:
    near = [{0, 1, 2, 3}, {0, 1, 2, 3}, {4, 5, 6, 7}, {4, 5, 6, 7}]
    assert [share_of(rank, near) for rank in range(4)] == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]


def test_lists_of_cores_are_read_as_linux_writes_them() -> None:
    assert parse_cpulist("0-2,8,10-11\n") == {0, 1, 2, 8, 10, 11}
    assert parse_cpulist("\n") == set()


def test_flops_agree_with_torchs_counter() -> None:
    config = tiny_model_config(d_model=32)
    model = Bart(config).train()
    source, target = torch.randint(3, 90, (2, 24)), torch.randint(3, 90, (2, 8))
    # The counter does not support the fused attention of CPUs, but plain matrix products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        hidden = model(source, None, target)
        linear_cross_entropy(
            hidden, model.model.shared.weight, model.final_logits_bias, target
        ).backward()
    ours = training_flops(config, torch.tensor([24, 24]), torch.tensor([8, 8]))
    # We count only the half of causal attention that is not masked; the counter counts all.
    later = 3 * 2 * config.decoder_layers * (config.d_model * 8 * 8) * len(target)
    assert ours + later == counter.get_total_flops()


def test_no_peak_is_claimed_for_a_cpu() -> None:
    assert peak_flops(torch.device("cpu"), "bf16") is None
