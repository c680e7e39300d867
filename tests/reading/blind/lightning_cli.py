"""python lightning_cli.py fit --model.lr 0.01 --data.batch_size 64 --trainer.max_epochs 5"""
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset


class Rings(LightningDataModule):
    def __init__(self, data_dir: str = "./data", batch_size: int = 32, num_workers: int = 0, noise: float = 0.1, augment: bool = False):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        x = torch.randn(512, 2)
        y = (x.norm(dim=1) > 1).long()
        return DataLoader(TensorDataset(x, y), batch_size=self.hparams.batch_size)

    val_dataloader = train_dataloader


class Net(LightningModule):
    """A perceptron.

    Args:
        hidden_dim: width of the hidden layers
        n_layers: how many there are
        lr: learning rate
    """

    def __init__(
        self,
        hidden_dim: int = 64,
        n_layers: int = 2,
        dropout: float = 0.0,
        activation: str = "relu",
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        beta2: float = 0.999,
        num_classes: int = 2,
    ):
        super().__init__()
        self.save_hyperparameters()
        dims = [2] + [hidden_dim] * n_layers
        self.body = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in zip(dims, dims[1:]))
        self.drop = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(hidden_dim, num_classes)

    def forward(self, x):
        for layer in self.body:
            x = self.drop(getattr(F, self.hparams.activation)(layer(x)))
        return self.head(x)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(
            self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay, betas=(0.9, self.hparams.beta2)
        )


def cli_main():
    LightningCLI(Net, Rings, seed_everything_default=7)


if __name__ == "__main__":
    cli_main()
