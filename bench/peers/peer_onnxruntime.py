"""ONNX Runtime, its CPU provider. Variant: f32."""

from harness import arguments, images, measure

ARGS = arguments()

import onnxruntime  # noqa: E402


def main():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = ARGS.threads
    options.inter_op_num_threads = 1
    path = str(ARGS.folder / f"network-{ARGS.batch}.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = images(ARGS)
    run = lambda: session.run(None, {"images": x})[0]
    measure(ARGS, run, onnxruntime.__version__, forward=True)


if __name__ == "__main__":
    main()
