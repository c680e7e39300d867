"""Baseline for the newsgroup-like table: a plain scikit-learn pipeline."""
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

X, y = load_wine(return_X_y=True)
pre = ColumnTransformer([("num", StandardScaler(), list(range(10))), ("poly", PolynomialFeatures(degree=2), [10, 11, 12])])
clf = Pipeline(
    [
        ("pre", pre),
        ("pca", PCA(n_components=8, whiten=False, random_state=0)),
        ("svc", SVC(C=1.0, gamma=0.05, kernel="rbf", class_weight=None)),
    ]
)
cv = StratifiedKFold(n_splits=5, shuffle=True, random_state=7)
scores = cross_val_score(clf, X, y, cv=cv, n_jobs=1)
print(f"CV accuracy: {np.mean(scores):.4f} +/- {np.std(scores):.4f}")
