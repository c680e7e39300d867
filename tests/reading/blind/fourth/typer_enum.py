"""Cluster customers, a small command with typer and an Enum."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from sklearn.cluster import DBSCAN, KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score


class Method(str, Enum):
    kmeans = "kmeans"
    dbscan = "dbscan"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    method: Annotated[Method, typer.Option(help="which algorithm")] = Method.kmeans,
    k: Annotated[int, typer.Option("--clusters", "-k", min=2, max=20, help="clusters of k-means")] = 5,
    eps: Annotated[float, typer.Option(help="radius of DBSCAN")] = 0.5,
    min_samples: int = 5,
    scale: Annotated[bool, typer.Option("--scale/--no-scale")] = True,
    n_init: int = typer.Option(4, help="restarts"),
    data: Annotated[Optional[Path], typer.Option(help="CSV, else made-up blobs")] = None,
    random_state: int = 0,
    quiet: bool = False,
):
    """Print the silhouette."""
    X, _ = make_blobs(400, centers=6, n_features=4, random_state=random_state) if data is None else (np.loadtxt(data), None)
    if scale:
        X = (X - X.mean(0)) / X.std(0)
    if method is Method.kmeans:
        labels = KMeans(k, n_init=n_init, random_state=random_state).fit_predict(X)
    else:
        labels = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(X)
    score = silhouette_score(X, labels) if len(set(labels)) > 1 else -1.0
    if not quiet:
        typer.echo(f"silhouette = {score:.4f}")


if __name__ == "__main__":
    app()
