"""Batch normalisation with the statistics of the batches of all processes."""

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from reid_kit.distributed import sum_over_processes


class _SumOverProcesses(torch.autograd.Function):
    """A sum over ranks whose gradient is the sum over ranks."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        return sum_over_processes(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.contiguous())


def shared_batch_norm(norm: nn.modules.batchnorm._BatchNorm, values: Tensor) -> Tensor:
    """`norm` applied to (B, C, ...) values with mean and variance over the rows of all processes."""
    dims = [d for d in range(values.ndim) if d != 1]
    shape = [1, -1] + [1] * (values.ndim - 2)
    wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    sums = _SumOverProcesses.apply(torch.cat([wide.sum(dims), wide.new_full((1,), wide[:, 0].numel())]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = wide - mean.view(shape)  # squares of these lose no digits where the mean is far from 0
    variance = _SumOverProcesses.apply(centred.square().sum(dims)) / count
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.to(norm.running_mean), float(momentum))
            norm.running_var.lerp_((variance * count / (count - 1)).to(norm.running_var), float(momentum))
    scaled = centred * (variance.view(shape) + norm.eps).rsqrt()
    if norm.affine:
        scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    return scaled.to(values.dtype)


class SharedBatchNorm(nn.Module):
    """Mixed in before a batch norm class: over several processes, training uses the statistics of all rows."""

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        values = shared_batch_norm(self, values)
        return self.act(self.drop(values)) if isinstance(self, BatchNormAct2d) else values


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch statistics over all processes; names in its state stay as they are.

    On GPUs this is torch's SyncBatchNorm, which has no CPU form; on the CPU it is `shared_batch_norm`.
    """
    if device.type == "cuda":
        return convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            kind = type(module)
            module.__class__ = type(f"Shared{kind.__name__}", (SharedBatchNorm, kind), {})
    return model
