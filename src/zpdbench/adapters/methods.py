"""What a method trains of a model, with which optimiser, and what of it is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zpdbench import grid
from zpdbench.adapters import decoder, lora, memory
from zpdbench.adapters.decoder import Decoder
from zpdbench.adapters.optimiser import AdamW, Optimiser, ShardedAdamW
from zpdbench.adapters.parallel import Group
from zpdbench.study import Training

_NOT_COPIED = ("MANIFEST.json", "model.safetensors.index.json")


@dataclass(frozen=True)
class Trained:
    """A model that is ready to be trained.

    Attributes:
        size: trained values.
        rank, adapted: as in `flops.forward`.
        sharded: whether each process holds a part of the weights.
        export: what is to be served, by name; a collective act, {} but on the first process.
        write: puts the folder of one served step together: (folder, file of `export`'s tensors).
    """

    network: Decoder
    optimiser: Optimiser
    size: int
    rank: int
    adapted: int
    sharded: bool
    export: Callable[[], dict[str, Tensor]]
    write: Callable[[Path, Path], None]


def prepare(training: Training, checkpoint: Path, name: str, seed: int, group: Group) -> Trained:
    """The checkpoint as `training.method` wants it.

    Raises:
        UserError: as `decoder.load` and `lora.apply`.
    """
    make = full if training.method == "full" else low_rank
    trained = make(training, checkpoint, name, seed, group)
    needed = memory.needed(
        trained.network.shape,
        full=training.method == "full",
        trained=trained.size,
        rank=trained.rank,
        width=2 if training.precision == "bfloat16" else 4,
        tokens=training.max_tokens
        * min(training.micro_batch or training.batch_size, training.batch_size // group.size),
        processes=group.size,
    )
    wanted = training.gradient_checkpointing
    # All processes alike: with parts of one model they must pass through it at one pace.
    trained.network.checkpointing = group.first(
        needed > memory.SHARE * memory.device_bytes(group.device) if wanted == "auto" else wanted
    )
    return trained


def low_rank(training: Training, checkpoint: Path, name: str, seed: int, group: Group) -> Trained:
    """Frozen weights and trained adapters; every process has all of both."""
    chosen = training.lora
    network = decoder.load(checkpoint, _dtype(training), group.device)
    layers = lora.apply(
        network, chosen.target_modules, chosen.rank, chosen.alpha, chosen.dropout, seed
    )
    parameters = [p for layer in layers.values() for p in (layer.lora_a, layer.lora_b)]
    optimiser = AdamW(parameters, training.weight_decay, training.max_grad_norm, group)
    config = lora.config_text(name, list(layers), chosen.rank, chosen.alpha, chosen.dropout)

    def write(folder: Path, weights: Path) -> None:
        folder.mkdir()
        shutil.copyfile(weights, folder / grid.ADAPTER_FILES[1])
        (folder / grid.ADAPTER_FILES[0]).write_text(config, "utf-8")

    return Trained(
        network,
        optimiser,
        size=int(optimiser.values.numel()),
        rank=chosen.rank,
        adapted=sum(layer.base.in_features + layer.base.out_features for layer in layers.values()),
        sharded=False,
        export=lambda: lora.tensors(layers) if group.leads else {},
        write=write,
    )


def full(training: Training, checkpoint: Path, name: str, seed: int, group: Group) -> Trained:
    """All weights trained, in float32; with several processes each holds a part (FSDP)."""
    dtype = _dtype(training)
    sharded = group.size > 1
    # Sharding moves layer after layer to the device, which may be too small for all of them.
    network = decoder.load(checkpoint, dtype, "cpu" if sharded else group.device, trained=True)
    if sharded:
        shard(network, group)
    named: dict[str, Any] = dict(network.named_parameters())
    parameters = list(named.values())
    clip, decay = training.max_grad_norm, training.weight_decay
    optimiser = (
        ShardedAdamW(parameters, decay, clip, group) if sharded else AdamW(parameters, decay, clip)
    )

    def export() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for key, parameter in named.items():
            # With parts, all processes take part in putting each together.
            whole = parameter.full_tensor() if sharded else parameter
            if group.leads:
                found[key] = whole.detach().to(device="cpu", dtype=dtype)
        return found

    def write(folder: Path, weights: Path) -> None:
        folder.mkdir()
        for file in sorted(checkpoint.iterdir()):
            if file.is_file() and file.suffix != ".safetensors" and file.name not in _NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
        config.pop("torch_dtype", None)
        config["dtype"] = training.precision
        text = json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / grid.FULL_FILES[0]).write_text(text, "utf-8")
        shutil.copyfile(weights, folder / grid.FULL_FILES[1])

    return Trained(
        network,
        optimiser,
        size=sum(p.numel() for p in parameters),
        rank=0,
        adapted=0,
        sharded=sharded,
        export=export,
        write=write,
    )


def shard(network: Decoder, group: Group) -> None:
    """Cut the weights up among the processes, a layer at a time (FSDP2).

    A layer is put together when it is passed and taken apart behind it; gradients are summed, not
    averaged, because each process divides by the whole batch's number of label tokens.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(group.device).type, (group.size,))
    modules: list[nn.Module] = [*network.model.layers, network]
    for module in modules:
        made: Any = fully_shard(module, mesh=mesh)
        made.set_gradient_divide_factor(1.0)
        # Else gloo is asked for a scaled sum, which it does not know.
        made.set_force_sum_reduction_for_comms(True)


def _dtype(training: Training) -> torch.dtype:
    return torch.bfloat16 if training.precision == "bfloat16" else torch.float32
