import argparse


def add_model_args(parent):
    g = parent.add_argument_group("model")
    g.add_argument("-nl", "--n-layers", type=int, default=6)
    g.add_argument("--d-model", type=int, default=512, metavar="D")
    g.add_argument("--pre-norm", default=False, action="store_true")
    g.add_argument("--pos", choices=("sin", "rope", "learned"), default="rope", help="kind of positions")
    return parent


def add_optim_args(parent):
    g = parent.add_argument_group("optimization")
    lr_kw = dict(type=float, default=3e-4)
    g.add_argument("--lr", **lr_kw)
    g.add_argument("--betas", type=float, nargs=2, default=(0.9, 0.98))
    g.add_argument("--wd", type=float, default=0.1)
    g.add_argument("--warmup", type=int, default=4000)
    g.add_argument("--tokens-per-batch", type=int, default=4096)
    g.add_argument("--ema-decay", type=float, default=0.0)


def get_parser():
    parser = argparse.ArgumentParser(fromfile_prefix_chars="@")
    parser.add_argument("corpus")
    parser.add_argument("--max-steps", type=int, default=100_000)
    parser.add_argument("--fp16", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    add_model_args(parser)
    add_optim_args(parser)
    return parser


if __name__ == "__main__":
    a = get_parser().parse_args()
    print(f"| valid ppl {a.lr * a.wd:.2f}")
