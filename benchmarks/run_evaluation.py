"""Scoring speed of this project: `python -m benchmarks.run_evaluation --network resnet18-w32`."""

import time

from benchmarks.runner import random_images, report, runner_options
from cifar100.running import cpu
from cifar100.running.params import load
from stages.evaluate.params import EvaluateParameters


def main() -> None:
    """Time what the stage evaluate calls, with the params of params.yaml; a step is a batch."""
    options = runner_options(__doc__).parse_args()
    threads = len(cpu.available_cores())
    cpu.prepare(threads)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from cifar100.network.resnet import ResNetConfig, build_resnet
    from cifar100.trained.inference import predict_logits
    from cifar100.trained.loading import TrainedModel

    params = load(EvaluateParameters)
    batch, flip = params.eval_batch_size, params.eval_flip
    network = build_resnet(ResNetConfig(*options.network), seed=0)
    network.eval()
    model = TrainedModel(network, temperature=1.0, class_names={})
    images, _ = random_images((options.warmup + options.steps) * batch)
    warm = options.warmup * batch
    predict_logits(model, images[:warm], batch, flip)
    started = time.perf_counter()
    predict_logits(model, images[warm:], batch, flip)
    seconds = time.perf_counter() - started
    report(images_per_second=options.steps * batch / seconds, precision="float32", threads=threads)


if __name__ == "__main__":
    main()
