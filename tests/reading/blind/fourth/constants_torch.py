# quick experiment, do not judge
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

LR = 1e-2
WD = 0
BATCH = 64
EPOCHS = 8
HIDDEN = [64, 32]
P_DROP = 0.2
OPT = "sgd"  # or adam
MOMENTUM = 0.9
SEED = 42
DEVICE = "cpu"
DATA_DIR = "./data"
N_CLASSES = 10

torch.manual_seed(SEED)
X, y = load_digits(return_X_y=True)
Xa, Xb, ya, yb = train_test_split(torch.tensor(X / 16).float(), torch.tensor(y), test_size=0.25, random_state=SEED)

layers, n = [], 64
for h in HIDDEN:
    layers += [nn.Linear(n, h), nn.ReLU(), nn.Dropout(P_DROP)]
    n = h
net = nn.Sequential(*layers, nn.Linear(n, N_CLASSES)).to(DEVICE)
if OPT == "sgd":
    opt = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WD)
else:
    opt = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WD)
sched = torch.optim.lr_scheduler.StepLR(opt, step_size=3, gamma=0.5)
for epoch in range(EPOCHS):
    net.train()
    for i in torch.randperm(len(Xa)).split(BATCH):
        opt.zero_grad()
        nn.functional.cross_entropy(net(Xa[i]), ya[i], label_smoothing=0.0).backward()
        opt.step()
    sched.step()
    net.eval()
    acc = (net(Xb).argmax(1) == yb).float().mean().item()
    print("epoch", epoch, "acc", acc)
print("final accuracy", acc)
