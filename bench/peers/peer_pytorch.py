"""PyTorch. Works:

    forward          inference of the ensemble, batch norms folded into the convolutions
    train_step       one optimiser step of all branches on one batch, the frozen stem run once
    published_step   the same, as the published code does it: every branch on its own batch, 8 stem passes
    full             one step of a whole ResNet-152, everything trained

Variants, any of them joined with `+`: `f32` as it comes; `channels_last`, the NHWC memory format; `compile`,
torch.compile; `bf16`, autocast to bfloat16.
"""

from harness import arguments, images, measure

ARGS = arguments()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from network import CLASSES, SIZE, Split, resnet152  # noqa: E402

OPTIONS = set(ARGS.variant.split("+"))
LAYOUT = torch.channels_last if "channels_last" in OPTIONS else torch.contiguous_format


def autocast():
    return torch.autocast("cpu", torch.bfloat16, enabled="bf16" in OPTIONS)


def batch_of_noise():
    return torch.randn(ARGS.batch, 3, SIZE, SIZE).contiguous(memory_format=LAYOUT)


def placed(module):
    return module.to(memory_format=LAYOUT)


def compiled(module):
    return torch.compile(module) if "compile" in OPTIONS else module


def adamw(module):
    return torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01, fused=True)


def forward():
    # The very network that the other engines read as ONNX.
    state = ARGS.folder / "network.pt"
    net = Split().folded()
    net.load_state_dict(torch.load(state))
    net = compiled(placed(net))
    x = torch.from_numpy(images(ARGS)).contiguous(memory_format=LAYOUT)

    def run():
        with torch.inference_mode(), autocast():
            return net(x).float()

    measure(ARGS, run, torch.__version__, forward=True)


def step(net, optimizer, features, labels):
    optimizer.zero_grad(set_to_none=True)
    with autocast():
        loss = F.cross_entropy(net(features), labels)
    loss.backward()
    optimizer.step()


def branch_training(shared):
    net = placed(Split())
    stem = compiled(net.stem.eval().requires_grad_(False))
    tails = [compiled(tail) for tail in net.tails]
    optimizers = [adamw(tail) for tail in net.tails]
    batches = [(batch_of_noise(), torch.randint(CLASSES, (ARGS.batch,))) for _ in tails]

    def features(x):
        with torch.no_grad(), autocast():
            return stem(x)

    def run():
        common = features(batches[0][0]) if shared else None
        for tail, optimizer, (x, labels) in zip(tails, optimizers, batches):
            if shared:
                step(tail, optimizer, common, batches[0][1])
            else:
                step(tail, optimizer, features(x), labels)

    measure(ARGS, run, torch.__version__)


def full():
    net = placed(resnet152()).train()
    optimizer = adamw(net)
    net = compiled(net)
    x, labels = batch_of_noise(), torch.randint(CLASSES, (ARGS.batch,))
    measure(ARGS, lambda: step(net, optimizer, x, labels), torch.__version__)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(ARGS.threads)
    works = {
        "forward": forward,
        "train_step": lambda: branch_training(shared=True),
        "published_step": lambda: branch_training(shared=False),
        "full": full,
    }
    works[ARGS.work]()


if __name__ == "__main__":
    main()
