"""A recommender by matrix factorisation; python-fire exposes a class."""
import fire
import numpy as np


class Recommender:
    """ALS on a made-up rating matrix."""

    def __init__(self, rank: int = 8, reg: float = 0.1, implicit=False, verbose: bool = False):
        self.rank, self.reg, self.implicit, self.verbose = rank, reg, implicit, verbose

    def train(self, iters: int = 10, alpha: float = 40.0, seed=0):
        rng = np.random.default_rng(seed)
        R = rng.standard_normal((60, 4)) @ rng.standard_normal((4, 40)) + 0.3 * rng.standard_normal((60, 40))
        mask = rng.random(R.shape) < 0.7
        U, V = rng.standard_normal((60, self.rank)), rng.standard_normal((40, self.rank))
        eye = self.reg * np.eye(self.rank)
        for _ in range(iters):
            for i in range(60):
                v = V[mask[i]]
                U[i] = np.linalg.solve(v.T @ v + eye, v.T @ R[i, mask[i]])
            for j in range(40):
                u = U[mask[:, j]]
                V[j] = np.linalg.solve(u.T @ u + eye, u.T @ R[mask[:, j], j])
        rmse = float(np.sqrt(np.mean((R - U @ V.T)[~mask] ** 2)))
        print(f"holdout rmse {rmse:.4f}")
        return rmse


if __name__ == "__main__":
    fire.Fire(Recommender)
