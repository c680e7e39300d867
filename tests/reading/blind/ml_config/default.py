"""Default configuration."""
import ml_collections


def get_config():
  """The default hyperparameters of the vision transformer."""
  config = ml_collections.ConfigDict()
  config.seed = 42
  config.dataset = 'cifar10'
  config.model = ml_collections.ConfigDict()
  config.model.hidden_size = 192
  config.model.num_layers = 6
  config.model.mlp_dim = 768
  config.model.num_heads = 3
  config.model.dropout_rate = 0.1
  config.model.patch_size = 4
  config.optimizer = ml_collections.ConfigDict(dict(
      name='adamw',
      learning_rate=3e-4,
      weight_decay=0.05,
      b2=0.99,
  ))
  config.warmup_steps = 500
  config.num_epochs = 10
  config.batch_size = 128
  config.label_smoothing = 0.1
  config.log_every_steps = 100
  return config
