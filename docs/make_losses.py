"""Writes docs/losses.md from the registry of losses and the formulas below: `python docs/make_losses.py`."""

import inspect
from pathlib import Path
from typing import NamedTuple

from reid_kit.losses import LOSSES
from reid_kit.losses.miners import MINERS


class Entry(NamedTuple):
    """What the registry does not know of a loss."""

    formula: str
    source: str
    detached: str = "nothing"
    misprint: str = ""


SRT = "soft ranking threshold (ICIP 2021 slides)"
RLL = "ranked list loss (Wang et al., CVPR 2019)"
RAW = "a unified view of deep metric learning (2019; RAW + VTHM)"

ENTRIES = {
    "softmax": Entry(r"-\log \frac{\exp(w_{y_i}^\top f_i)}{\sum_c \exp(w_c^\top f_i)}", "identity cross entropy"),
    "cosine_softmax": Entry(
        r"-\log \frac{e^{s \cos(\theta_{y_i} + m)}}{e^{s \cos(\theta_{y_i} + m)} + \sum_{c \ne y_i} e^{s \cos\theta_c}}",
        "ArcFace (Deng et al. 2019) with `margin_on: angle`; CosFace (Wang et al. 2018), $\\cos\\theta - m$, with "
        "`margin_on: cosine`; NormFace (Wang et al. 2017) with `margin` 0, the default",
        "nothing",
        "where $\\theta + m > \\pi$ ArcFace would rise again; $\\cos\\theta - m \\sin m$ takes its place, as in all code",
    ),
    "circle_softmax": Entry(
        r"\log\Big(1 + \sum_{c \ne y_i} e^{\gamma \alpha_c (s_c - m)}\, e^{-\gamma \alpha_{y_i} (s_{y_i} - 1 + m)}\Big)",
        "Sun et al. 2020 with class-level labels; $s_c$ is the cosine to the weights of identity $c$",
        "the weights $\\alpha$ (`detach_weights`)",
    ),
    "center": Entry(
        r"\tfrac{1}{2}\, \mathrm{mean}_i \|f_i - c_{y_i}\|^2,\quad "
        r"c_j \leftarrow c_j - \rho\, \frac{\sum_{y_i = j} (c_j - f_i)}{1 + n_j}",
        "Wen et al. 2016, eq. 2 and 4",
        "the centres, which move by their own rule and not by the optimizer",
        "re-ID code makes the centres parameters, whose steps then depend on the term's weight and the optimizer; here "
        "they do not. The paper sums over the batch, this is the mean",
    ),
    "triplet": Entry(r"\mathrm{mean}_{(a,p,n)}\; \phi(d_{ap} - d_{an})", f'{SRT} "Tri."; {RLL} eq. 1; {RAW} eq. 7'),
    "triplet_hard_negative": Entry(r"\mathrm{mean}_{(a,p)}\; \phi(d_{ap} - \min_n d_{an})", f'{SRT} "Tri-HN"'),
    "triplet_batch_hard": Entry(
        r"\mathrm{mean}_a\; \phi(\max_p d_{ap} - \min_n d_{an})", f'{SRT} "Tri-BH"; Hermans et al. 2017'
    ),
    "triplet_semi_hard": Entry(
        r"\mathrm{mean}_{(a,p)}\; \phi(d_{ap} - d_{an^*}),\quad n^* = \arg\min_{n:\, d_{an} > d_{ap}} d_{an}",
        f'{RLL} "Triplet Semihard"; Schroff et al. 2015, as TensorFlow ships it (else the farthest negative)',
        "the choice of the negative",
    ),
    "triplet_adaptive_weight": Entry(
        r"\mathrm{mean}_a\; \phi\Big(\sum_p w_p d_{ap} - \sum_n w_n d_{an}\Big),\quad "
        r"w_p = \mathrm{softmax}_{P_a}(d_{ap}),\; w_n = \mathrm{softmax}_{N_a}(-d_{an})",
        f'{SRT} "Tri-AW"; Ristani and Tomasi 2018',
        "nothing; the weights with `detach_weights`",
        "widely copied code counts the anchor among its positives; this one does not",
    ),
    "hierarchical_triplet": Entry(
        r"\tfrac{1}{2}\,\mathrm{mean}_{(a,p,n)}\; [d_{ap} - d_{an} + \beta + d_{H(y_a, y_n)} - s_{y_a}]_+,\quad "
        r"d_l = d_0 + \tfrac{l}{L}(4 - d_0)",
        f'the tables of {RAW} ("HTL"); Ge et al. 2018. $d_l$ is the threshold of level $l$ of a tree of the classes, $H$ '
        "the level at which two of them merge, $s$ the mean distance within a class, $d_0$ the mean of $s$",
        "the tree, made of the embeddings of the epoch before",
        "there is no public code of it; the paper writes plain norms in the triplet and squared ones in the tree, here "
        "both are squared unless `distance` says otherwise, and classes merge through chains of near ones",
    ),
    "soft_ranking_threshold": Entry(
        r"\alpha\, \mathrm{mean}_{y_i = y_j} \phi(R_{ij} - T_i^+) + (1-\alpha)\, \mathrm{mean}_{y_i \ne y_j} "
        r"\phi(T_i^- - R_{ij}),\quad R_{ij} = 1 + \sum_{k \ne j} \sigma\Big(\frac{d_{ij} - d_{ik}}{t}\Big)",
        f"{SRT}: plain $T^+ = P_i,\\ T^- = P_i + 1$; hard $T^+ = P_i/2,\\ T^- = (B + P_i + 1)/2$",
        "nothing",
        "the slides write the soft rank without the 1; only with it do a resolved list's positives take ranks 2 to P",
    ),
    "ranked_list": Entry(
        r"\frac{1}{|P^*_i|}\sum_{j \in P^*_i} [d_{ij} - (\alpha - m)]_+ + \sum_{j \in N^*_i} "
        r"\frac{e^{T(\alpha - d_{ij})}}{\sum_k e^{T(\alpha - d_{ik})}} (\alpha - d_{ij})",
        f"{RLL} eq. 8 to 14",
        "the gallery and the weights, as the paper updates only the query (`detach_gallery`, `detach_weights`)",
    ),
    "relative_absolute": Entry(
        r"\frac{1}{\alpha}\log\Big(1 + \sum_{P_i} e^{-\alpha(s_{ij} - \lambda)}\Big) + "
        r"\frac{1}{\beta}\log\Big(1 + \sum_{N_i} e^{\beta(s_{ij} - \lambda)}\Big)",
        f"{RAW} eq. 15 to 17; published as the multi-similarity loss",
        "the miner's choice",
    ),
    "multi_similarity": Entry(
        r"\frac{1}{\alpha}\log\Big(1 + \sum_{P_i} e^{-\alpha(s_{ij} - \lambda)}\Big) + "
        r"\frac{1}{\beta}\log\Big(1 + \sum_{N_i} e^{\beta(s_{ij} - \lambda)}\Big)",
        "Wang et al., CVPR 2019, with its mining; the same loss as `relative_absolute`",
        "the miner's choice",
    ),
    "binomial_deviance": Entry(
        r"\frac{1}{|P_i|}\sum_{P_i} \log(1 + e^{\alpha(\lambda - s_{ij})}) + "
        r"\frac{1}{|N_i|}\sum_{N_i} \log(1 + e^{\beta(s_{ij} - \lambda)})",
        f"{RAW} eq. 12",
        "the miner's choice",
    ),
    "contrastive": Entry(
        r"\mathrm{mean}\Big(\sum_{N} [s_{ij} - \lambda]_+ - \sum_{P} s_{ij}\Big)",
        f"{RAW} eq. 5; `form: hadsell` is Hadsell et al. 2006",
        "the miner's choice",
    ),
    "lifted_structure": Entry(
        r"\frac{1}{2|P|}\sum_{(i,j) \in P} \Big[d_{ij} + \log\Big(\sum_{k \in N_i} e^{m - d_{ik}} + "
        r"\sum_{l \in N_j} e^{m - d_{jl}}\Big)\Big]_+^2",
        f"{RLL} eq. 3; Song et al. 2016",
        "nothing",
        "RLL eq. 3 closes the logarithm early and lacks the square",
    ),
    "generalized_lifted_structure": Entry(
        r"\Big[\log \sum_{P_i} e^{-s_{ij}} + \log \sum_{N_i} e^{s_{ij} - \lambda}\Big]_+",
        f"{RAW} eq. 9; Hermans et al. 2017 in the distance form",
        "the miner's choice",
        "RAW eq. 9 has the signs that weigh the easiest negative most, against its own eq. 11",
    ),
    "n_pair": Entry(
        r"\mathrm{mean}_i \log\Big(1 + \sum_{j \ne i} e^{f_i^\top f_j^+ - f_i^\top f_i^+}\Big) + l_2\, \mathrm{mean} \|f\|^2",
        f"{RLL} eq. 2; Sohn 2016",
    ),
    "proxy_nca": Entry(
        r"-\log \frac{e^{-d(f_i, p_{y_i})}}{\sum_{z \ne y_i} e^{-d(f_i, p_z)}}",
        f"{RLL} eq. 5; Movshovitz-Attias et al. 2017",
        "nothing",
        "all code squares the distance (`squared`, `normalize`, `scale` 3), the paper's equation does not; what is printed "
        "is the default",
    ),
    "proxy_anchor": Entry(
        r"\frac{1}{|P^+|}\sum_{p \in P^+} \log\Big(1 + \sum_{y_i = p} e^{-\alpha(s_{ip} - \delta)}\Big) + "
        r"\frac{1}{C}\sum_p \log\Big(1 + \sum_{y_i \ne p} e^{\alpha(s_{ip} + \delta)}\Big)",
        "Kim et al. 2020, eq. 4; $P^+$ are the proxies with images in the batch",
    ),
    "margin": Entry(
        r"\frac{1}{\#\mathrm{active}}\Big(\sum_P [d_{ap} - \beta + m]_+ + \sum_N [\beta - d_{an} + m]_+\Big)",
        f'Wu et al. 2017; {RAW} tables 2 and 3 ("Margin")',
        "the sampling of pairs",
    ),
    "histogram": Entry(
        r"\sum_r h^-_r \sum_{q \le r} h^+_q",
        "Ustinova and Lempitsky 2016: chance that a negative is more similar; in no table of the papers",
    ),
    "angular": Entry(
        r"\log\Big(1 + \sum_n e^{4\tan^2\alpha\,(x_a + x_p)^\top x_n - 2(1 + \tan^2\alpha)\,x_a^\top x_p}\Big)",
        "Wang et al. 2017, with its N-pair term; in no table of the papers",
    ),
    "quadruplet": Entry(
        r"\mathrm{mean}\,[d_{ij} - d_{ik} + m_1]_+ + \mathrm{mean}\,[d_{ij} - d_{kl} + m_2]_+", "Chen et al. 2017"
    ),
    "facility_location": Entry(
        r"\Big[\max_S \big(F(S) + \gamma\,(1 - \mathrm{NMI}(S))\big) - F(S^*)\Big]_+,\quad F(S) = -\sum_i \min_{j \in S} d_{ij}",
        f'{RLL} eq. 6 and 7, "Struct Clust"; Song et al. 2017',
        "the search for the medoids",
        "NMI divides by the mean of the entropies, as RLL's reference and the evaluation have it; others by their "
        "geometric mean",
    ),
    "spectral_clustering": Entry(
        r"-\tfrac{1}{2}\,\mathrm{tr}(J J^\top F F^{+}),\quad J = Y\,\mathrm{diag}(n_c)^{-1/2}",
        f'{RLL} "Spectral Clust"; Law et al. 2017',
        "nothing",
        "a batch of no more images than dimensions teaches nothing, which is warned of",
    ),
    "hdc": Entry(
        r"\sum_k \mathrm{contrastive}_k(\text{hardest } 100, 50, 20\,\%\text{ of the pairs})",
        f'{RAW} tables 2 and 3 ("HDC"); Yuan et al. 2017',
        "the choice of pairs",
    ),
    "a_bier": Entry(
        r"\sum_m \mathrm{binomial}_m(w_{m-1}) + \text{diversity}",
        f'{RAW} tables 2 and 3 ("ABIER"); Opitz et al. 2018',
        "the boosting weights",
    ),
    "circle": Entry(
        r"\mathrm{softplus}\Big(\log\sum_N e^{\gamma \alpha_n (s_n - m)} + \log\sum_P e^{-\gamma \alpha_p (s_p - 1 + m)}\Big)",
        "Sun et al. 2020",
        "the weights $\\alpha_p, \\alpha_n$ (`detach_weights`)",
    ),
    "smooth_ap": Entry(
        r"1 - \frac{1}{|P_i|}\sum_{j \in P_i} \frac{1 + \sum_{k \in P_i} \sigma(D_{jk}/\tau)}"
        r"{1 + \sum_{k \in P_i \cup N_i} \sigma(D_{jk}/\tau)},\quad D_{jk} = s_{ik} - s_{ij}",
        "Brown et al. 2020",
    ),
}

HEADER = """# The losses

Written by `python docs/make_losses.py` from the registry. $d$ is a distance, $s$ a cosine similarity, $P_i$ and $N_i$
the positives and negatives of anchor $i$, $[x]_+ = \\max(x, 0)$, $\\phi$ a hinge with a margin or softplus. Each is called
as `reid_kit.build_loss(name, **options)(embeddings, labels)` and used in a config as `{name: ..., option: ...}` in
`LOSS.TERMS`. What holds for all of them: any batch, any order; self-pairs removed by index; float32 at least; an empty
set gives a 0 that still backpropagates; W processes give the value and gradient of one.

Miners for the pair losses, as `miner: NAME` or `miner: {name: NAME, option: value}`: %s. They judge by cosine.

![What a pair weighs in each loss](loss_weights.png)

The pictures above are drawn by `python tools/plot_loss_weights.py`.

The seven rows of the RAW paper's Table 1:

| row | term |
|---|---|
| Binomial | `{name: binomial_deviance, reduction: mean}` |
| RAW | `{name: relative_absolute}` |
| VTHM | `{name: contrastive, threshold: -1.0, miner: vthm}` |
| Binomial + VTHM | `{name: binomial_deviance, reduction: mean, miner: vthm}` |
| RAW + DW | `{name: relative_absolute, miner: distance_weighted}` |
| RAW + SemiHard | `{name: relative_absolute, miner: semi_hard}` |
| RAW + VTHM | `{name: relative_absolute, miner: vthm}` |
"""


def section(name: str) -> str:
    loss, entry = LOSSES[name], ENTRIES[name]
    options = ", ".join(
        f"`{option.name}`" + ("" if option.default is option.empty else f" = {option.default!r}")
        for option in inspect.signature(loss).parameters.values()
    )
    # a fence, as Markdown takes the backslashes of `\\,` and `\\;` out of $$ ... $$ on some hosts
    lines = [f"## `{name}`", "", "```math", entry.formula, "```", "", f"- Source: {entry.source}."]
    lines += [f"- Options: {options or 'none'}.", f"- Held constant in the gradient: {entry.detached}."]
    lines += [f"- Beware: {entry.misprint}."] if entry.misprint else []
    term = repr([{"name": name}])
    lines += [f'- Run: `python tools/train.py --config configs/demo_srt.yaml LOSS.TERMS "{term}"`.']
    lines += [f"- Code: [{loss.__module__.rsplit('.', 1)[1]}.py](../{loss.__module__.replace('.', '/')}.py)."]
    return "\n".join(lines)


def document() -> str:
    miners = ", ".join(f"`{name}`" for name in MINERS)
    return "\n\n".join([(HEADER % miners).strip(), *(section(name) for name in ENTRIES)]) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "losses.md").write_text(document())
