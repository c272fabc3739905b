"""Over several processes batch statistics are those of all rows."""

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from timm.layers import BatchNormAct2d
from torch import nn

from reid_kit.model.batch_norm import synchronize_batch_norm

ROWS = [5, 2]


def network():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(5)).double()


def images():
    return torch.randn(sum(ROWS), 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def outcome(model, rows, weights):
    out = model(rows)
    (out * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return out.detach(), gradients, model.state_dict()


def weights():
    return torch.randn(sum(ROWS), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = slice(0, ROWS[0]) if rank == 0 else slice(ROWS[0], None)
    model = synchronize_batch_norm(network(), torch.device("cpu"))
    torch.save(outcome(model, images()[part], weights()[part]), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_with_unequal_rows(tmp_path):
    multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    out, gradients, state = outcome(network(), images(), weights())
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), out)
    for name, gradient in gradients.items():
        torch.testing.assert_close(sum(part[1][name] for part in parts), gradient)
    for part in parts:
        assert part[2].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(part[2][name], value)


def test_names_and_tested_values_stay():
    plain, shared = network().eval(), synchronize_batch_norm(network(), torch.device("cpu")).eval()
    assert torch.equal(plain(images()), shared(images()))
