"""Which parameters take another learning rate or no weight decay: layers by depth, biases, norms and tokens."""

from collections.abc import Iterable

from timm.models import group_parameters
from torch import nn
from torch.nn import Parameter

from reid_kit.errors import InputError

Group = tuple[Iterable[Parameter], float]  # and the factor on their learning rate
TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "vectors")  # of transformers, and of cameras


def by_depth(network: nn.Module, parameters: Iterable[Parameter], decay: float) -> list[Group]:
    """The parameters of a timm network by layer, each with `decay` to the power of its distance from the last one.

    BEiT's layer-wise learning-rate decay (Bao et al. 2022); what is not the network's counts as its last layer.

    Raises:
        InputError: the network does not say what its layers are.
    """
    parameters = list(parameters)
    if decay == 1:
        return [(parameters, 1.0)]
    if not hasattr(network, "group_matcher"):
        raise InputError(
            f"OPTIMIZER.LAYER_DECAY is not possible for {type(network).__name__}, which does not tell its layers; "
            f"set it to 1"
        )
    layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    depth = {id(parameter): layers[name] for name, parameter in network.named_parameters()}
    groups: dict[int, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(depth.get(id(parameter), last), []).append(parameter)
    return [(groups[layer], decay ** (last - layer)) for layer in sorted(groups)]


def refined(
    groups: Iterable[Group], modules: Iterable[nn.Module], bias_factor: float, decay_all: bool
) -> list[tuple[list[Parameter], float, bool]]:
    """The groups with biases apart where `bias_factor` is not 1, and what takes no weight decay unless `decay_all`.

    Norms, biases (all that has one dimension) and the tokens of a transformer take none.

    Returns:
        (parameters, factor on the learning rate, whether weight decay applies), none of them empty.
    """
    named = [(name, parameter) for module in modules for name, parameter in module.named_parameters()]
    biases = {id(p) for name, p in named if name.endswith("bias")} if bias_factor != 1 else set()
    bare = set()
    if not decay_all:
        bare = {id(p) for name, p in named if p.ndim <= 1 or name.rsplit(".", 1)[-1] in TOKENS}
    found: dict[tuple, tuple[list[Parameter], float, bool]] = {}
    for place, (parameters, factor) in enumerate(groups):
        for p in parameters:
            bias, decayed = id(p) in biases, id(p) not in bare
            rate = factor * (bias_factor if bias else 1)
            found.setdefault((place, bias, decayed), ([], rate, decayed))[0].append(p)
    return list(found.values())
