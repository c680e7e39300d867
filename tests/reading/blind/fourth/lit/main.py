"""Lightning CLI: everything from config.yaml."""
from lightning.pytorch.cli import LightningCLI

from project.data import LeavesDataModule
from project.model import LeafNet


def cli_main():
    LightningCLI(LeafNet, LeavesDataModule, save_config_callback=None)


if __name__ == "__main__":
    cli_main()
