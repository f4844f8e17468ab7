"""Writes the network of network.py as ONNX, with inputs and the outputs that PyTorch computes from them:
network-N.onnx, input-N.f32 and expected-N.f32 for every batch size N; network.pt, its weights; and calibration.f32, 64
more inputs.

    export.py FOLDER N...
"""

import sys
from pathlib import Path

import torch
from network import CLASSES, SIZE, Split

CALIBRATION = 64


def main():
    folder, batches = Path(sys.argv[1]), [int(n) for n in sys.argv[2:]]
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    net = Split()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    net.train()
    with torch.no_grad():
        net(torch.randn(64, 3, SIZE, SIZE))  # running statistics that are not all zero and one
    net.folded()
    torch.save(net.state_dict(), folder / "network.pt")
    for batch in batches:
        x = torch.randn(batch, 3, SIZE, SIZE)
        with torch.inference_mode():
            expected = net(x)
        assert expected.shape == (batch, CLASSES)
        x.numpy().tofile(folder / f"input-{batch}.f32")
        expected.numpy().tofile(folder / f"expected-{batch}.f32")
        path = str(folder / f"network-{batch}.onnx")
        torch.onnx.export(net, (x,), path, input_names=["images"], output_names=["probabilities"], dynamo=False)
    torch.randn(CALIBRATION, 3, SIZE, SIZE).numpy().tofile(folder / "calibration.f32")


if __name__ == "__main__":
    main()
