from sacred import Experiment
from sacred.observers import FileStorageObserver

ex = Experiment("cifar_cnn")
ex.observers.append(FileStorageObserver("runs"))


@ex.config
def cfg():
    lr = 0.05  # initial learning rate
    momentum = 0.9
    nesterov = True
    wd = 5e-4
    batch_size = 128
    epochs = 30
    width = 32
    data_root = "/data/cifar"
    cutout = 8  # side of the square that is cut out
    seed = 1234
    log_every = 50


@ex.named_config
def small():
    width = 16


@ex.automain
def main(lr, momentum, nesterov, wd, batch_size, epochs, width, data_root, cutout, _seed):
    acc = 1 / (1 + abs(lr - 0.1) + wd)
    print("final test acc: {:.3f}".format(acc))
    return acc
