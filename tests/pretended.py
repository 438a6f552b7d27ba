"""An accelerator that no machine needs to have: the meta device, which computes shapes and types but no numbers, with the gaps that Apple's and NVIDIA's have."""
from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")


class Accelerator(TorchDispatchMode):
    """Inside, tensors on DEVICE have no float64 (as on MPS) and no antialiased resizing of bytes (as on CUDA). What is brought to the CPU is all zeros."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        here = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.device == DEVICE]
        if here and func.name() in ("aten::item", "aten::_local_scalar_dense"):
            return 0
        if here and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
            return torch.zeros(here[0].shape, dtype=kwargs.get("dtype") or here[0].dtype)
        if "_aa" in func.name() and any(x.dtype == torch.uint8 for x in here):
            raise NotImplementedError(f"{func.name()}: the accelerator does not resize bytes")
        result = func(*args, **kwargs)
        if any(isinstance(x, torch.Tensor) and x.device == DEVICE and x.dtype == torch.float64 for x in tree_leaves(result)):
            raise TypeError(f"{func.name()}: the accelerator has no float64")
        return result
