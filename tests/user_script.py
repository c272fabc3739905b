"""What a user writes; `make types` runs a strict type checker over it. It is not run."""

import numpy as np
import torch

import reid_kit

loss = reid_kit.build_loss("soft_ranking_threshold", thresholds="hard")
value = loss(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))
result = reid_kit.evaluate_retrieval(np.zeros((2, 4)), np.zeros((3, 4)), [0, 1], [0, 1, 1])
print(result.mAP + 1.0, result.cmc[1], result.protocol.upper(), result.average_precision.shape)
distances = reid_kit.k_reciprocal_distance(np.zeros((2, 4)), np.zeros((3, 4)))
dataset = reid_kit.load_dataset("demo", "datasets")
print(dataset.train[0].path.name, len(dataset.query), dataset.protocol.same_set)
model = reid_kit.load_model("best.pt")
features = model.embed(["a.jpg"], batch_size=4)
print(features.shape)
