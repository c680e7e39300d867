import torch
import torch.nn as nn
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self, width=32, p=0.3):
        super().__init__()
        self.c = nn.Conv2d(1, width, 3)
        self.d = nn.Dropout(p)
        self.f = nn.Linear(width * 26 * 26, 10)

    def forward(self, x):
        return self.f(self.d(torch.relu(self.c(x)).flatten(1)))


def main():
    torch.manual_seed(0)
    batch_size = 64
    learning_rate = 1e-3
    num_epochs = 5
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train = torch.utils.data.DataLoader(
        datasets.MNIST("data", transform=transforms.ToTensor()), batch_size=batch_size, shuffle=True, num_workers=2
    )
    net = Net().to(device)
    opt = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.01)
    sched = torch.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
    for epoch in range(num_epochs):
        for x, y in train:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x.to(device)), y.to(device), label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
        sched.step()
        print(f"Epoch [{epoch + 1}/{num_epochs}], Loss: {loss.item():.4f}")


if __name__ == "__main__":
    main()
