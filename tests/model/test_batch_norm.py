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


def far_from_zero():
    """float32 values with a mean of 100 deviations, where sums of squares lose what the variance is made of."""
    return (images() + 100).float()


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
    norm = synchronize_batch_norm(nn.BatchNorm2d(3), torch.device("cpu"))
    far = norm(far_from_zero()[part]).detach(), norm.running_var
    torch.save((*outcome(model, images()[part], weights()[part]), far), f"{folder}/{rank}.pt")
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
    norm = nn.BatchNorm2d(3).double()
    expected = norm(far_from_zero().double()).detach()
    far = torch.cat([part[3][0] for part in parts]).double()
    torch.testing.assert_close(far, expected, atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(parts[0][3][1].double(), norm.running_var, atol=0, rtol=1e-5)


def test_names_and_tested_values_stay():
    plain, shared = network().eval(), synchronize_batch_norm(network(), torch.device("cpu")).eval()
    assert torch.equal(plain(images()), shared(images()))
