# Copyright 2019, a lab. Trains a small GAN on 2-D mixtures.
from absl import app
from absl import flags
from absl import logging
import torch
from torch import nn

FLAGS = flags.FLAGS
flags.DEFINE_integer('steps', 4000, 'Number of generator steps.')
flags.DEFINE_integer('n_critic', 5, 'Critic steps per generator step.', lower_bound=1)
flags.DEFINE_float('g_lr', 1e-4, 'Learning rate of the generator.')
flags.DEFINE_float('d_lr', 4e-4, 'Learning rate of the critic.')
flags.DEFINE_float('gp_weight', 10.0, 'Weight of the gradient penalty.', lower_bound=0.)
flags.DEFINE_integer('z_dim', 16, 'Dimension of the noise.')
flags.DEFINE_list('hidden', ['128', '128'], 'Widths.')
flags.DEFINE_enum('loss', 'wgan', ['wgan', 'hinge', 'ns'], 'Loss of the game.')
flags.DEFINE_bool('spectral_norm', False, 'Normalise the critic.')
flags.DEFINE_float('ema', 0.999, 'Decay of the moving average of the weights.', lower_bound=0.0, upper_bound=1.0)
_BATCH = flags.DEFINE_integer(name='batch_size', default=256, help='Batch size.')
flags.DEFINE_string('workdir', None, 'Where to write.')
flags.DEFINE_integer('seed', 1, 'Random seed.')
flags.mark_flag_as_required('workdir')


def critic(width):
  return nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))


def main(argv):
  del argv
  torch.manual_seed(FLAGS.seed)
  d = critic(int(FLAGS.hidden[0]))
  opt = torch.optim.Adam(d.parameters(), lr=FLAGS.d_lr, betas=(0.0, 0.9))
  for step in range(FLAGS.steps):
    x = torch.randn(_BATCH.value, 2)
    loss = d(x).mean() * FLAGS.gp_weight
    opt.zero_grad(); loss.backward(); opt.step()
    if step % 100 == 0:
      logging.info('step %d wasserstein %.4f', step, loss.item())
  print('wasserstein=%.5f' % loss.item())


if __name__ == '__main__':
  app.run(main)
