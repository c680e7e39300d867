"""python main.py --config=default.py --config.batch_size=64"""
from absl import app
from absl import flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
flags.DEFINE_string('workdir', '/tmp/vit', 'Directory to store model data.')
_CONFIG = config_flags.DEFINE_config_file('config', 'default.py', 'File path to the training hyperparameter configuration.', lock_config=True)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError('Too many command-line arguments.')
  config = _CONFIG.value
  loss = config.optimizer.learning_rate * config.batch_size + config.model.dropout_rate
  print({'val_accuracy': 1 / (1 + loss)})


if __name__ == '__main__':
  app.run(main)
