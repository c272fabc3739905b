"""The images of a query or a gallery, as the evaluator needs them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reid_kit.evaluation.features import Array


@dataclass(frozen=True)
class ImageSet:
    """(N, D) features, (N,) identities, and (N,) cameras; None where they are not known of all.

    records: what else is known of each image (`data.records.Record`); empty for features that came without.
    """

    features: Array
    identities: Array
    cameras: Array | None = None
    records: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.features)

    def with_features(self, features: Array, positions: np.ndarray | None = None) -> "ImageSet":
        """Other features of the same images, or of those at `positions`."""
        if positions is None:
            return replace(self, features=features)
        cameras = None if self.cameras is None else self.cameras[positions]
        records = [self.records[position] for position in positions] if self.records else ()
        return ImageSet(features, self.identities[positions], cameras, records)
