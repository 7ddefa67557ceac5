"""Model-written code, run fast and with nothing let out; the verdict is made outside."""

from zpdbench.sandbox.calibration import calibrate
from zpdbench.sandbox.passk import mean_pass_at_k, pass_at_k
from zpdbench.sandbox.pool import LAYERS, Pool, layers
from zpdbench.sandbox.program import STATUSES, Limits, Program, Verdict

__all__ = [
    "LAYERS",
    "STATUSES",
    "Limits",
    "Pool",
    "Program",
    "Verdict",
    "calibrate",
    "layers",
    "mean_pass_at_k",
    "pass_at_k",
]
