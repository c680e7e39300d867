"""A support vector machine on scikit-learn's wine. Style: click, with ranges, choices, a pair and a repeated option."""

import json
import os
from pathlib import Path

import click
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

KERNELS = ("rbf", "poly", "sigmoid")


@click.command()
@click.option("-C", "--penalty-c", "c", type=float, default=1.0, show_default=True, help="inverse regularisation")
@click.option("--kernel", type=click.Choice(KERNELS), default="rbf", help="kernel of the machine")
@click.option("--gamma", type=click.FloatRange(1e-6, 10.0), default=0.1, help="width of the kernel")
@click.option("--degree", type=click.IntRange(2, 5), default=3, help="of the polynomial kernel")
@click.option("--components", type=click.IntRange(min=1, max=13), default=8, help="principal components kept")
@click.option("--shrinking/--no-shrinking", default=True, help="use the shrinking heuristic")
@click.option("--balanced/--no-balanced", default=False, help="weigh the classes by their inverse frequency")
@click.option("--drop", multiple=True, help="names of columns to leave out")
@click.option("--folds", default=5, help="of the cross-validation")
@click.option("--seed", default=0)
@click.option("--cache-dir", type=click.Path(), default=None)
@click.option("-v", "--verbose", is_flag=True)
def main(c, kernel, gamma, degree, components, shrinking, balanced, drop, folds, seed, cache_dir, verbose):
    data = load_wine(as_frame=True)
    X = data.data.drop(columns=list(drop))
    machine = SVC(
        C=c,
        kernel=kernel,
        gamma=gamma,
        degree=degree,
        shrinking=shrinking,
        class_weight="balanced" if balanced else None,
        random_state=seed,
    )
    model = make_pipeline(StandardScaler(), PCA(min(components, X.shape[1]), random_state=seed), machine)
    scores = cross_val_score(model, X, data.target, cv=folds)
    if verbose:
        click.echo(f"{scores} {cache_dir}")
    text = json.dumps({"accuracy": float(scores.mean())})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else click.echo(text)


if __name__ == "__main__":
    main()
