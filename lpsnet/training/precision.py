"""Which device a run uses and which arithmetic its forward pass."""

import os

import torch
from accelerate import Accelerator

from lpsnet.training.settings import LoopSettings


def make_accelerator() -> Accelerator:
    """Accelerate's view of this process: its device and the other processes, as they were launched."""
    return Accelerator(cpu=not torch.cuda.is_available() and not _has_mps())


def forward_type(recipe: LoopSettings, device: torch.device) -> torch.dtype:
    """The floating-point type that the forward pass computes in where it may; float32 is without autocast."""
    if recipe.precision == "auto":
        return torch.bfloat16 if _computes_bf16(device) else torch.float32
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[recipe.precision]


def _computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than f32 here, not merely possible: it needs instructions of its own."""
    if device.type == "cuda":
        supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available()) and os.environ.get("ACCELERATE_USE_CPU") != "true"
