"""Check before a run starts that it fits in memory, and choose the micro-batch for `auto`.

In: a model on its device and the lengths of the longest sequences. Out: the configuration with a
numeric micro-batch, and the available memory. All ranks get the same result.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from bart_cli.config.presets import load_config
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.config.training import TrainingConfig
from bart_cli.data.batch import MULTIPLE
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter
from bart_cli.runtime.memory import available_memory, is_out_of_memory
from bart_cli.runtime.world import World
from bart_cli.training.footprint import GIB, Footprint, as_in_training, footprint, longest_batch
from bart_cli.training.loop import batch_loss

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)
SPARE = 0.9  # share of the available memory that `auto` uses
CERTAIN = 1.3  # refuse to start if the estimate exceeds the available memory by this factor
SMALLER = (
    "Pass --set training.activation_checkpointing=true or --set optimizer.name=adafactor, or "
    "train a smaller model."
)


@dataclass(frozen=True)
class Room:
    """Memory that a run needs, and memory that is available."""

    needs: Footprint
    available: int | None  # bytes besides the weights; None: unknown
    at_once: int = 1  # sequences of the greatest length per forward pass

    def hint(self, micro_batch: int, *, failed: bool = False) -> str:
        """Suggest a setting that fits in place of this micro-batch.

        If it `failed`, it ran out of memory although the estimate allowed it.
        """
        most = micro_batch // 2 if failed else micro_batch - 1
        if self.available is not None:
            most = self.needs.largest(self.available, most)
        if most < 1:
            return SMALLER
        return f"Pass --micro-batch {most} (estimated to fit), or auto; the global batch stays."


def fit(
    config: Config,
    run: Path,
    model: Bart,
    lengths: tuple[int, int],
    world: World,
    reporter: Reporter,
    *,
    resumed: bool,
) -> tuple[Config, Room]:
    """Check the memory that a run needs, and replace a micro-batch of `auto` with a number.

    The number comes from the estimate on a CPU, and from trial steps on a GPU. A resumed run keeps
    its previous number if that still fits. `lengths` are those of the longest source and target.
    """
    training = config.training
    positions = model.config.max_position_embeddings
    padded = tuple(min(positions, -(-length // MULTIPLE) * MULTIPLE) for length in lengths)
    longest = (padded[0], padded[1])
    needs = footprint(model, training, config.optimizer, longest, world)
    room = Room(needs, _available(world))
    share = training.global_batch // world.size
    if training.micro_batch == "auto":
        path = run / "config.yaml"
        kept: int | str | None = None
        if resumed and world.is_main and path.is_file():  # has the number, unless it was edited
            kept = load_config(type(config), config_file=path).training.micro_batch
        number = world.broadcast(kept if isinstance(kept, int) else None)
        if number is None or (room.available and not needs.largest(room.available, number)):
            number = _chosen(model, training, longest, share, room, world)
        reporter.info(f"micro-batch {number}, {-(-share // number)} per step")
        chosen = training.model_copy(update={"micro_batch": number})
        config = config.model_copy(update={"training": chosen})
    at_once = min(config.training.micro_batch_size, share)
    if (limit := getattr(config.data, "max_tokens", None)) is not None:
        at_once = min(at_once, max(1, limit // longest[0]))
    room = replace(room, at_once=at_once)
    _check(room, world, reporter)
    return config, room


def _available(world: World) -> int | None:
    """Return the bytes that every rank can still allocate on its device, or None if unknown."""
    if world.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(world.device)
        cached = torch.cuda.memory_reserved(world.device)
        own: int | None = free + cached - torch.cuda.memory_allocated(world.device)
    else:
        own = available_memory()
        own = None if own is None else own // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    known = [size for size in world.gather_all(own) if size is not None]
    return min(known, default=None)


def _chosen(
    model: Bart,
    training: TrainingConfig,
    lengths: tuple[int, int],
    share: int,
    room: Room,
    world: World,
) -> int:
    """Return the largest micro-batch that fits, reduced to equalize the micro-batches of a step."""
    number = share
    if room.available is not None:
        number = max(1, room.needs.largest(SPARE * room.available, share))
    if world.device.type == "cuda" and training.sharding == "none":

        def fits(n: int) -> bool:
            return not world.any(not _tried(model, training, lengths, n, room.needs, world))

        number = largest_that_fits(number, share, fits)
    return -(-share // -(-share // number))


def largest_that_fits(guess: int, most: int, fits: Callable[[int], bool]) -> int:
    """Search for the largest number from 1 to `most` that fits, to within an eighth."""
    low, high = 0, most + 1  # low fits, high does not
    number = guess
    while high - low > max(1, low // 8):
        if fits(number):
            low = number
        else:
            high = number
        number = min(2 * low, most) if high > most and low else (low + high) // 2
        if number <= low:
            break
    return max(1, low)


def _tried(
    model: Bart,
    training: TrainingConfig,
    lengths: tuple[int, int],
    number: int,
    needs: Footprint,
    world: World,
) -> bool:
    """Return whether two micro-batches of the longest sequences fit besides the optimizer state.

    Has no side effects: weights are not updated, and the random state is restored.
    """
    held = None
    try:
        with as_in_training(model, world.device):
            held = torch.empty(needs.optimizer, dtype=torch.uint8, device=world.device)
            for _ in range(2):
                batch = longest_batch(model, number, lengths, world.device)
                batch_loss(model, batch, training).backward()
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        del held
        model.zero_grad()
        if world.device.type == "cuda":
            torch.cuda.empty_cache()


def _check(room: Room, world: World, reporter: Reporter) -> None:
    """Report the memory that the run needs; warn if it may not fit, and fail if it cannot."""
    at_once = room.at_once
    needed = room.needs.total(at_once)
    besides_weights = needed - room.needs.weights
    sizes = room.needs.parts(at_once).items()
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in sizes if size)
    parts += f" (micro-batch {at_once})"
    if room.available is None:
        reporter.info(f"memory: about {needed / GIB:.2f} GiB: {parts}")
        return
    total = f"{(room.available + room.needs.weights) / GIB:.2f} GiB"
    total += f" for each of {world.size} processes" if world.size > 1 else ""
    text = f"memory: about {needed / GIB:.2f} of {total}: {parts}"
    if besides_weights > CERTAIN * room.available:
        raise UsageError(f"not enough {text}", hint=room.hint(at_once))
    if besides_weights > room.available:
        reporter.warn(f"not enough {text}. {room.hint(at_once)}")
    else:
        reporter.info(text)
