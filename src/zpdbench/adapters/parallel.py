"""Several processes that train one run: how they are started, meet, and add up.

On one machine `train-adapter` starts them itself; `accelerate launch` may do it instead, over
several machines. CPUs talk by gloo, CUDA devices by nccl. With one process nothing here is loaded
or asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from zpdbench import devices
from zpdbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MEETING = "ZPDBENCH_MEETING"
"""The file by which processes on one machine find each other: no port, so none that is taken."""
_LAUNCHER = "ZPDBENCH_LAUNCHER"
"""The process that started this one: killed, it takes its children with it."""
GRACE_SECONDS = 30.0
"""What the others have left to end by themselves once one process has failed."""


@dataclass(frozen=True)
class Group:
    """The processes of a run as one of them sees them; alone by default.

    Attributes:
        rank: of this process, from 0; the first alone writes and speaks.
        size: how many there are.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Add the processes' tensors up, in place; each gets the same bits."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, on every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def first(self, value: Any) -> Any:
        """The first process's value, on every process."""
        return self.gather(value if self.leads else None)[0]

    def wait(self) -> None:
        """Go on when all are here."""
        self.gather(None)


def started(processes: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of a run's several already.

    Raises:
        UserError: a launcher has started another number of them.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    if processes == 1 or size == 1:
        return False
    if size != processes:
        raise UserError(
            f"{size} processes were launched, the configuration says {processes}",
            where="training.processes",
            fix="launch as many, or none: zpdbench starts them itself",
        )
    return True


def join(processes: int, wants_gpu: bool, or_cpu: bool = False) -> Group:
    """Meet the other processes of this run; alone if there is only to be one.

    Args:
        wants_gpu, or_cpu: as in `devices.choose`.

    Raises:
        UserError: fewer GPUs than processes on this machine, or a device that knows no group.
    """
    if processes == 1:
        return Group(device=devices.find(wants_gpu, or_cpu=or_cpu))
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    # What they may see was claimed once for all of them, by whoever started them.
    device = devices.choose(
        wants_gpu,
        cuda=torch.cuda.is_available(),
        mps=torch.backends.mps.is_available(),
        or_cpu=or_cpu,
    )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    there = {"cuda": torch.cuda.device_count(), "cpu": here}.get(device, 1)
    if there < here:
        raise UserError(
            f"{here} processes and {there} {device} device{'s' if there > 1 else ''} here",
            where="training.processes",
            fix=f"lower it to {there}, or set {devices.VARIABLE}=cpu",
        )
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if meeting := os.environ.get(MEETING):
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=Path(meeting).as_uri(),
            rank=int(os.environ["RANK"]),
            world_size=processes,
        )
    state = PartialState(cpu=device == "cpu")
    return Group(state.process_index, state.num_processes, str(state.device))


def leave(group: Group) -> None:
    """Part from the others, at the end of a run that went well."""
    if group.size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


def launch(processes: int, arguments: Mapping[str, Any], wants_gpu: bool = False) -> int:
    """Run `train-adapter` with these arguments in as many processes; the exit code.

    SIGTERM is handed on, so that the run saves its state. What another process than the first has
    to say is shown only if it was the first to fail.
    """
    if wants_gpu and os.environ.get(devices.VARIABLE, "cuda") == "cuda":
        devices.claim(processes)
    package = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "zpdbench.adapters.parallel", json.dumps(dict(arguments))]
    with tempfile.TemporaryDirectory(prefix="zpdbench-") as folder:
        children: list[subprocess.Popen[bytes]] = []

        def hand_on(signum: int, frame: FrameType | None) -> None:
            for child in children:
                if child.poll() is None:
                    child.send_signal(signum)

        previous = signal.signal(signal.SIGTERM, hand_on)
        try:
            for rank in range(processes):
                environment = {
                    **os.environ,
                    "PYTHONPATH": search,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes),
                    "LOCAL_WORLD_SIZE": str(processes),
                    "MASTER_ADDR": "127.0.0.1",
                    MEETING: f"{folder}/meeting",
                    _LAUNCHER: str(os.getpid()),
                }
                if sys.platform.startswith("linux"):
                    # All are on this machine: not by way of whatever its name resolves to.
                    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
                with Path(folder, f"{rank}.err").open("wb") as said:
                    children.append(
                        subprocess.Popen(command, env=environment, stderr=said if rank else None)
                    )
            codes, culprit = _wait(children)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
            signal.signal(signal.SIGTERM, previous)
        if culprit is None:
            return 0
        text = Path(folder, f"{culprit}.err").read_text("utf-8", "replace") if culprit else ""
        if text:
            print(f"process {culprit} failed first:\n{text[-4000:]}", file=sys.stderr)
        code = codes[culprit]
        return code if code > 0 else 128 - code


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> tuple[list[int], int | None]:
    """The children's exit codes, and which failed first, if any.

    Once one has failed the others have a grace, then they are killed.
    """
    end, culprit = float("inf"), None
    while True:
        codes = [child.poll() for child in children]
        if culprit is None:
            culprit = next((rank for rank, code in enumerate(codes) if code), None)
            end = end if culprit is None else time.monotonic() + GRACE_SECONDS
        if all(code is not None for code in codes):
            return [code or 0 for code in codes], culprit
        if time.monotonic() > end:
            for child in children:
                if child.poll() is None:
                    child.kill()
        time.sleep(0.05)


def _watch(launcher: int) -> None:
    """End this process once its launcher is gone: nobody would wait for what it writes."""
    while os.getppid() == launcher:
        time.sleep(1.0)
    os._exit(1)


def _child(arguments: str) -> int:
    from argparse import Namespace

    threading.Thread(target=_watch, args=(int(os.environ[_LAUNCHER]),), daemon=True).start()
    from zpdbench.adapters import train_adapter

    try:
        return train_adapter.main(Namespace(**json.loads(arguments)))
    except UserError as error:
        # All meet the same mistake; one says so.
        if os.environ["RANK"] == "0":
            print(f"zpdbench train-adapter: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1]))
