import os

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

lr = float(os.environ.get("LR", "0.05"))
alpha = float(os.getenv("ALPHA", 1e-4))
loss = os.environ.get("LOSS", "log_loss")
epochs = int(os.environ.get("EPOCHS", 20))
average = bool(int(os.environ.get("AVERAGE", "0")))
l1_ratio = float(os.environ["L1_RATIO"]) if "L1_RATIO" in os.environ else 0.15
name = os.environ.get("RUN_NAME", "baseline")

X, y = load_breast_cancer(return_X_y=True)
model = SGDClassifier(
    loss=loss, learning_rate="adaptive", eta0=lr, alpha=alpha, max_iter=epochs, tol=None, average=average,
    penalty="elasticnet", l1_ratio=l1_ratio, random_state=0,
)
score = cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=3).mean()
print(f"[{name}] cv_accuracy={score:.5f}")
