"""
Train a tiny GPT. All settings are globals and can be overridden from the command line:
$ python nanogpt_style.py --batch_size=32 --compile=False
"""
import os
import time
import math

# -----------------------------------------------------------------------------
# I/O
out_dir = 'out'
eval_interval = 200
eval_iters = 20
log_interval = 10
always_save_checkpoint = False
init_from = 'scratch' # 'scratch' or 'resume'
# data
dataset = 'shakespeare'
gradient_accumulation_steps = 5 * 8 # used to simulate larger batch sizes
batch_size = 12 # if gradient_accumulation_steps > 1, this is the micro-batch size
block_size = 64
# model
n_layer = 4
n_head = 4
n_embd = 128
dropout = 0.0 # for pretraining 0 is good, for finetuning try 0.1+
bias = False # do we use bias inside LayerNorm and Linear layers?
# adamw optimizer
learning_rate = 6e-4 # max learning rate
max_iters = 2000 # total number of training iterations
weight_decay = 1e-1
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0 # clip gradients at this value, or disable if == 0.0
# learning rate decay settings
decay_lr = True # whether to decay the learning rate
warmup_iters = 100 # how many steps to warm up for
lr_decay_iters = 2000 # should be ~= max_iters
min_lr = 6e-5 # minimum learning rate, should be ~= learning_rate/10
# system
device = 'cpu'
dtype = 'float32'
compile = False
# -----------------------------------------------------------------------------
config_keys = [k for k,v in globals().items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))]
exec(open('configurator.py').read()) # overrides from command line or config file
config = {k: globals()[k] for k in config_keys}
# -----------------------------------------------------------------------------
tokens_per_iter = gradient_accumulation_steps * batch_size * block_size
os.makedirs(out_dir, exist_ok=True)

def get_lr(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)

t0 = time.time()
best_val_loss = 1e9
iter_num = 0
while iter_num < max_iters:
    lr = get_lr(iter_num) if decay_lr else learning_rate
    loss = 4.0 / (1 + iter_num * lr) + dropout * 0 + weight_decay * 0 + grad_clip * 0 + beta1 * 0 + beta2 * 0
    best_val_loss = min(best_val_loss, loss)
    iter_num += 1
print(f"step {iter_num}: val loss {best_val_loss:.4f}, {n_layer * n_head * n_embd} {bias} {time.time() - t0:.1f}s")
