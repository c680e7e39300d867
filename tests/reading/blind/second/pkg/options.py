import argparse


class BaseOptions:
    def initialize(self, parser):
        parser.add_argument("--dataroot", required=True, help="path to images")
        parser.add_argument("--name", type=str, default="experiment_name")
        parser.add_argument("--gpu_ids", type=str, default="0", help="e.g. 0,1,2; -1 for CPU")
        parser.add_argument("--ngf", type=int, default=64, help="# of gen filters in the last conv layer")
        parser.add_argument("--ndf", type=int, default=64, help="# of discrim filters in the first conv layer")
        parser.add_argument("--netG", type=str, default="resnet_9blocks", choices=["resnet_9blocks", "resnet_6blocks", "unet_256"])
        parser.add_argument("--norm", type=str, default="instance", choices=["instance", "batch", "none"])
        parser.add_argument("--no_dropout", action="store_true", help="no dropout for the generator")
        parser.add_argument("--batch_size", type=int, default=1)
        parser.add_argument("--load_size", type=int, default=286, help="scale images to this size")
        parser.add_argument("--n_epochs", type=int, default=100)
        parser.add_argument("--beta1", type=float, default=0.5, help="momentum term of adam")
        parser.add_argument("--lr", type=float, default=0.0002)
        parser.add_argument("--lambda_L1", type=float, default=100.0, help="weight for L1 loss")
        parser.add_argument("--pool_size", type=int, default=50, help="image buffer of earlier fakes")
        parser.add_argument("--lr_policy", type=str, default="linear", choices=["linear", "step", "plateau", "cosine"])
        parser.add_argument("--print_freq", type=int, default=100)
        return parser

    def parse(self):
        return self.initialize(argparse.ArgumentParser()).parse_args()
