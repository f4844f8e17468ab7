"""Many trainings at once on one GPU: each is a CUDA graph of a step on a stream of its own."""

import math
import time

import torch
import torch.nn.functional as F

from network import Network

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BATCH = 32
# Classifiers have this many outputs; those that a dataset has no class for are masked.
CLASSES = 20
EMA_DECAY = 59 / 60


class Slot:
    """Room for one training at a time. What differs between trainings lies in tensors that the graph reads, so that one
    capture serves all of them."""

    def __init__(self, state, size, images, steps, stem_rate, bf16):
        # Casts are not cached: a graph must make them anew in every step.
        self.autocast = lambda: torch.autocast(DEVICE, torch.bfloat16, enabled=bf16, cache_enabled=False)
        self.net = Network(state, CLASSES).to(DEVICE).to(memory_format=torch.channels_last)
        self.initial = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.stem_rate = stem_rate if self.net.stem is not None else 0
        if self.net.stem is not None and not self.stem_rate:
            self.net.stem.requires_grad_(False)
        groups = [list(self.net.branches.parameters())]
        if self.stem_rate:
            groups.append(list(self.net.stem.parameters()))
        rate = lambda: torch.zeros((), device=DEVICE)
        groups = [{"params": params, "lr": rate()} for params in groups]
        options = {"fused": True, "capturable": True} if CUDA else {}
        self.optimizer = torch.optim.AdamW(groups, lr=rate(), weight_decay=0.01, **options)
        self.params = [p for g in groups for p in g["params"]]
        self.ema = [p.detach().clone() for p in self.params]
        self.images = torch.zeros(images, size, size, 3, dtype=torch.uint8, device=DEVICE)
        self.labels = torch.zeros(images, dtype=torch.int64, device=DEVICE)
        self.count = torch.ones((), dtype=torch.int64, device=DEVICE)
        self.at = torch.zeros((), dtype=torch.int64, device=DEVICE)
        self.rates = torch.zeros(steps, device=DEVICE)
        self.losses = torch.zeros(steps, device=DEVICE)
        self.mask = torch.zeros(CLASSES, device=DEVICE)
        self.target = torch.tensor(EMA_DECAY, device=DEVICE)
        self.batch = torch.arange(BATCH, device=DEVICE)
        self.graph = None
        if CUDA:
            self.capture()

    def capture(self):
        self.stream = torch.cuda.Stream()
        self.train_mode()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.step()
        torch.cuda.synchronize()

    def train_mode(self):
        self.net.train()
        if self.net.stem is not None and not self.stem_rate:
            self.net.stem.eval()

    def step(self):
        """One optimiser step; the epochs follow one another without a shorter last batch."""
        chosen = (self.at * BATCH + self.batch) % self.count
        x, y = pixels(self.images.index_select(0, chosen)), self.labels.index_select(0, chosen)
        rate = self.rates.index_select(0, self.at.view(1)).view(())
        for group, share in zip(self.optimizer.param_groups, [1.0, self.stem_rate]):
            group["lr"].copy_(rate * share)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            if self.net.stem is not None:
                with torch.set_grad_enabled(bool(self.stem_rate)):
                    x = self.net.stem(x)
            logits = [branch(x).float() + self.mask for branch in self.net.branches]
        loss = sum(F.cross_entropy(values, y) for values in logits)
        loss.backward()
        if self.stem_rate:  # it follows the mean of the branches' losses
            torch._foreach_div_([p.grad for p in self.net.stem.parameters()], len(self.net.branches))
        self.optimizer.step()
        with torch.no_grad():
            n = (self.at + 1).float()
            away = torch._foreach_sub([p.detach() for p in self.params], self.ema)
            torch._foreach_mul_(away, 1 - torch.minimum(self.target, (1 + n) / (10 + n)))
            torch._foreach_add_(self.ema, away)
            self.losses.index_copy_(0, self.at.view(1), (loss.detach() / len(self.net.branches)).view(1))
        self.at += 1

    @torch.no_grad()
    def begin(self, job):
        generator = torch.Generator().manual_seed(job.seed)
        for name, value in self.net.state_dict().items():
            if ".fc." in name:
                bound = 1 / math.sqrt(self.net.branches[0].features)
                value.copy_(torch.empty(value.shape).uniform_(-bound, bound, generator=generator))
            else:
                value.copy_(self.initial[name])
        images, labels = job.train
        self.images[: len(images)].copy_(images)
        self.labels[: len(labels)].copy_(labels)
        self.count.fill_(len(images))
        self.mask.zero_()
        self.mask[job.classes :] = -1e9
        if self.net.stem is not None:
            self.warm(job)
        for param, average in zip(self.params, self.ema):
            average.copy_(param)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        at = torch.arange(job.steps)
        self.rates[: job.steps].copy_(job.lr * 0.5 * (1 + torch.cos(math.pi * at / job.steps)))
        self.at.zero_()
        self.job, self.left = job, job.steps
        self.train_mode()

    def warm(self, job):
        """Statistics of the stem's batch norms, from the augmented images of the first epochs."""
        self.net.stem.train()
        for start in range(0, len(job.warming), BATCH):
            self.net.stem(pixels(job.warming[start : start + BATCH]))

    def run(self):
        if self.graph is None:
            return self.step()
        with torch.cuda.stream(self.stream):
            self.graph.replay()

    @torch.no_grad()
    def finish(self):
        """What the averaged weights say of the images that are held out, and of their mirror images: probabilities
        `[branch, n, class]`."""
        if CUDA:
            torch.cuda.synchronize()
        for param, average in zip(self.params, self.ema):
            param.copy_(average)
        self.net.eval()

        def probabilities(images):
            parts = [self.net(pixels(images[i : i + 512])) + self.mask for i in range(0, len(images), 512)]
            return torch.cat(parts, 1).softmax(-1)

        images = self.job.held_out[0]
        loss = self.losses[max(0, self.job.steps - 50) : self.job.steps].mean().item()
        return probabilities(images), probabilities(images.flip(2)), loss


def pixels(images):
    """Bytes `[n, h, w, 3]` as the network reads them."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def train_all(slots, jobs, deadline=math.inf):
    """Runs the jobs over the slots; yields each with its result. None is begun after `deadline` (of `time.time`)."""
    waiting, free, busy = sorted(jobs, key=lambda job: -job.steps), list(slots), []
    while busy or (waiting and time.time() < deadline):
        while waiting and free and time.time() < deadline:
            slot = free.pop()
            slot.begin(waiting.pop(0))
            busy.append(slot)
        if CUDA:
            torch.cuda.synchronize()
        steps = min(slot.left for slot in busy)
        for _ in range(steps):
            for slot in busy:
                slot.run()
        for slot in busy:
            slot.left -= steps
        for slot in [slot for slot in busy if slot.left == 0]:
            busy.remove(slot)
            free.append(slot)
            yield slot.job, slot.finish()
