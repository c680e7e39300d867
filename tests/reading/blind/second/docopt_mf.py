"""Matrix factorization by ALS.

Usage:
  docopt_mf.py <ratings> [options]
  docopt_mf.py (-h | --help)

Options:
  --factors=<k>       Number of latent factors [default: 32].
  --reg=<r>           Regularisation [default: 0.05].
  --alpha=<a>         Confidence of implicit feedback [default: 40].
  --iterations=<n>    Sweeps [default: 15].
  --implicit          Treat ratings as implicit feedback.
  --init-std=<s>      Deviation of the initial factors [default: 0.01].
  --seed=<n>          Seed [default: 0].
  --out=<file>        Where to save the factors [default: factors.npz].
  -h --help           Show this screen.
"""
from docopt import docopt

if __name__ == "__main__":
    args = docopt(__doc__)
    k, reg = int(args["--factors"]), float(args["--reg"])
    print("RMSE on held out: %f" % (1 / k + reg))
