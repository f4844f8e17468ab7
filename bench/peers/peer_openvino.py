"""OpenVINO. Variants: f32, bf16 (on a CPU that has it), int8 (post-training quantisation with NNCF, kept beside the
network)."""

from harness import SIZE, arguments, images, measure

ARGS = arguments()

import openvino  # noqa: E402

CALIBRATION = 64


def quantized(core):
    """The network in int8, calibrated on the images it was exported with."""
    path = ARGS.folder / f"int8-{ARGS.batch}.xml"
    if not path.exists():
        import nncf
        import numpy as np

        data = np.fromfile(ARGS.folder / "calibration.f32", np.float32)
        data = data.reshape(-1, ARGS.batch, 3, SIZE, SIZE)
        model = core.read_model(ARGS.folder / f"network-{ARGS.batch}.onnx")
        # Symmetric activations serve CNNs with ReLU best: NNCF's preset for performance.
        preset = nncf.QuantizationPreset.PERFORMANCE
        model = nncf.quantize(model, nncf.Dataset(data), subset_size=len(data), preset=preset)
        openvino.save_model(model, path, compress_to_fp16=False)
    return core.read_model(path)


def main():
    core = openvino.Core()
    int8 = ARGS.variant == "int8"
    model = quantized(core) if int8 else core.read_model(ARGS.folder / f"network-{ARGS.batch}.onnx")
    config = {
        "INFERENCE_NUM_THREADS": ARGS.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if ARGS.variant == "bf16" else "f32",
    }
    request = core.compile_model(model, "CPU", config).create_infer_request()
    x = images(ARGS)
    run = lambda: request.infer({0: x}, share_inputs=True)[0]
    measure(ARGS, run, openvino.__version__.split("-")[0], forward=True)


if __name__ == "__main__":
    main()
