"""Writes the golden PyTorch files of this folder. Run: python make.py (needs torch).

Tensor `a` is arange(6) - 2.5 as 2x3 unless said otherwise; golden.rs knows the values.
"""

import collections
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def save(name, value, **options):
    torch.save(value, HERE / name, **options)


a = torch.arange(6, dtype=torch.float32).reshape(2, 3) - 2.5
b = torch.tensor([1.5, -2.0, 0.25])
plain = collections.OrderedDict([("a", a), ("b", b)])

save("plain.pt", plain)
for protocol in (3, 4, 5):
    save(f"protocol{protocol}.pt", plain, pickle_protocol=protocol)
save("nested.pt", {"epoch": 3, "best": 0.5, "args": ["x", (1, None, True)], "state_dict": plain})
save("deep.pt", {"model": {"module": dict(plain)}, "optimizer": {"state": {0: {"step": b}}}})
save("parallel.pt", {f"module.{key}": value for key, value in plain.items()})
save("types.pt", {
    "f16": a.half(),
    "bf16": a.bfloat16(),
    "f64": a.double(),
    "i64": torch.tensor([-3, 1 << 40]),
    "i32": torch.tensor([-3, 7], dtype=torch.int32),
    "u8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(42.0),
    "empty": torch.zeros(0, 3),
})
base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
save("strided.pt", {
    "transposed": base.transpose(0, 2),
    "sliced": base[:, 1:, ::2],
    "channels_last": base.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "row": base[1, 2],
    "expanded": torch.tensor([1.0, 2.0]).reshape(2, 1).expand(2, 3),
})
shared = nn.Linear(3, 2)
with torch.no_grad():
    shared.weight.copy_(a)
    shared.bias.copy_(torch.tensor([0.5, -0.5]))
save("parameters.pt", {"weight": shared.weight, "bias": shared.bias, "tied": shared.weight})
save("legacy.pt", plain, _use_new_zipfile_serialization=False)
save("whole_model.pt", shared)
torch.jit.script(nn.Linear(1, 1)).save(str(HERE / "script.pt"))
