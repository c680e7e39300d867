from dataclasses import dataclass, field
from typing import Tuple

from simple_parsing import ArgumentParser, choice, subgroups


@dataclass
class PPOHParams:
    """Settings of the algorithm."""
    gamma: float = 0.99  # discount
    gae_lambda: float = 0.95
    clip_coef: float = 0.2
    ent_coef: float = 0.01  # entropy bonus
    vf_coef: float = 0.5
    update_epochs: int = 4
    num_minibatches: int = 4
    norm_adv: bool = True
    target_kl: float = None


@dataclass
class NetHParams:
    hidden: int = 64
    depth: int = 2
    activation: str = choice("tanh", "relu", "elu", default="tanh")
    layers: Tuple[int, ...] = (64, 64)


@dataclass
class RunConfig:
    """Not tuned."""
    env_id: str = "CartPole-v1"
    total_timesteps: int = 50_000
    seed: int = 1
    capture_video: bool = False
    out: str = "runs"


parser = ArgumentParser()
parser.add_arguments(PPOHParams, dest="ppo")
parser.add_arguments(NetHParams, dest="net")
parser.add_arguments(RunConfig, dest="run")
parser.add_argument("--lr", type=float, default=2.5e-4, help="of Adam")
parser.add_argument("--anneal", action="store_true", help="anneal the learning rate")


def main():
    args = parser.parse_args()
    print(f"episodic_return {args.ppo.gamma * 500 - args.lr + args.net.hidden * 0:.2f}")


if __name__ == "__main__":
    main()
