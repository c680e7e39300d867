"""How `data/` and `splits/` were made: scikit-learn's digits, shuffled, in four parts that share no image.

Run it only to make them again; the study needs the files alone.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
PARTS = {"data/train": 600, "splits/search": 400, "splits/promotion": 400, "splits/test": 397}


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    start = 0
    for name, size in PARTS.items():
        rows = order[start : start + size]
        np.save(HERE / f"{name}_images.npy", images[rows].astype(np.uint8))
        np.save(HERE / f"{name}_labels.npy", labels[rows].astype(np.uint8))
        start += size


if __name__ == "__main__":
    main()
