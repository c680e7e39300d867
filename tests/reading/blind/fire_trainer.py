"""Sentiment on a CSV of reviews. python fire_trainer.py train --lr=0.05 --ngrams=2"""
import fire
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

DATA = "reviews.csv"


class Experiment:
    def __init__(self, data=DATA, seed=13, verbose=False):
        self.data = data
        self.rng = np.random.RandomState(seed)
        self.seed = seed
        self.verbose = verbose

    def _load(self):
        import csv

        with open(self.data) as f:
            rows = list(csv.DictReader(f))
        return [r["text"] for r in rows], [int(r["label"]) for r in rows]

    def train(self, lr=0.01, alpha=1e-5, penalty="l2", l1_ratio=0.15, ngrams=1, min_df=2, sublinear_tf=True,
              max_features: int = 20000, epochs=15, test_size=0.2, average: bool = False):
        """Fit once and print the accuracy on the held out part."""
        texts, y = self._load()
        a, b, ya, yb = train_test_split(texts, y, test_size=test_size, random_state=self.seed)
        vec = TfidfVectorizer(ngram_range=(1, ngrams), min_df=min_df, sublinear_tf=sublinear_tf, max_features=max_features)
        clf = SGDClassifier(learning_rate="adaptive", eta0=lr, alpha=alpha, penalty=penalty, l1_ratio=l1_ratio,
                            max_iter=epochs, average=average, random_state=self.seed)
        clf.fit(vec.fit_transform(a), ya)
        acc = clf.score(vec.transform(b), yb)
        print("accuracy:", acc)
        return acc

    def describe(self, top=10):
        texts, y = self._load()
        print(len(texts), np.mean(y), texts[:top])


if __name__ == "__main__":
    fire.Fire(Experiment)
