from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TrainSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRAIN_", cli_parse_args=True)

    train_csv: str = "train.csv"
    n_estimators: int = Field(300, ge=10, le=5000)
    learning_rate: float = Field(0.05, gt=0, le=1, description="shrinkage")
    max_depth: int = Field(default=6, ge=1)
    subsample: float = Field(0.8, gt=0, le=1)
    colsample: float = 0.8
    random_state: int = 0
    n_jobs: int = 1


s = TrainSettings()
print("logloss", 1 / s.n_estimators + s.learning_rate)
