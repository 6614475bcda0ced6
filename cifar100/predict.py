"""Says what is on pictures: `python -m cifar100.predict cat.png holiday/`."""

import argparse
import json
import sys
from pathlib import Path

from cifar100.command import prepare_command

if __name__ == "__main__":
    prepare_command("predict")

import numpy as np

from cifar100.languages import check_language, translated
from cifar100.model_folder import FILES, choose_folder
from cifar100.pictures import picture_files, read_image
from cifar100.png_folder import check_folder, new_paths, write_png
from cifar100.running import cpu
from cifar100.running.errors import PipelineError, printable
from cifar100.running.guard import run_command
from cifar100.why import draw_maps


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cifar100.predict", description=__doc__)
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files, folders, or - for standard input"
    )
    parser.add_argument("--top", type=int, default=5, help="how many classes to name (default: 5)")
    parser.add_argument("--json", action="store_true", help="write JSON, one line per picture")
    parser.add_argument("--saw", type=Path, help="a folder for the 32×32 images that are looked at")
    parser.add_argument(
        "--why",
        type=Path,
        metavar="FOLDER",
        help="a folder for class activation maps of the pictures",
    )
    parser.add_argument(
        "--language", default="en", help="of the names of classes: en (default) or zh"
    )
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="where model.safetensors and model.json lie (default: models, or else pretrained)",
    )
    options = parser.parse_args()
    if options.top < 1:
        parser.error("argument --top: expected a whole number of at least 1")
    return options


def main() -> None:
    """Print the classes of each picture; one line on standard error for each that is unreadable."""
    options = parse_options()
    encoding = "utf-8" if options.json else sys.stdout.encoding  # JSON is written in ASCII
    check_language(options.language, encoding)
    if options.why:
        check_folder("--why", options.why)
    if options.saw:
        check_folder("--saw", options.saw)
        if options.why and options.saw.samefile(options.why):
            raise PipelineError("--saw and --why name the same folder; name two")
    folder = options.models or choose_folder()
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from cifar100.top_classes import as_blocks, as_lines, top_classes
    from cifar100.trained.loading import load_model

    weights, description = (folder / name for name in FILES)
    model = load_model(weights, description)
    if not options.models:
        print(f"predict: the network is that in {folder}/", file=sys.stderr)
    images, unreadable = {}, 0
    for name in picture_files(options.pictures):
        try:
            images[name] = read_image(name)
        except PipelineError as error:
            print(f"error: predict: {error}", file=sys.stderr)
            unreadable += 1
    if images:
        map_files = new_paths("--why", options.why, images) if options.why else {}
        saw_files = new_paths("--saw", options.saw, images) if options.saw else {}
        found = top_classes(model, np.stack(list(images.values())), options.top)
        maps = draw_maps(model, images, found) if options.why else {}
        found = [translated(prediction, options.language) for prediction in found]
        for name, path in saw_files.items():
            write_png(images[name].transpose(1, 2, 0), path)
        for (name, image), prediction in zip(images.items(), found, strict=True):
            if options.why:
                write_png(maps[name], map_files[name])
            why = {"why": str(map_files[name])} if options.why else {}
            if options.json:
                print(json.dumps({"picture": name, "predictions": prediction} | why))
                continue
            if sys.stdout.isatty() and sys.stdout.encoding.lower().startswith("utf"):
                print(as_blocks(image))
            print(as_lines(printable(name), prediction))
            if options.why:
                print(f"  why: {printable(str(map_files[name]))}")
    if unreadable:
        of_all = f"{unreadable} of {unreadable + len(images)} pictures"
        raise PipelineError(f"{of_all} could not be read")


if __name__ == "__main__":
    run_command("predict", main)
