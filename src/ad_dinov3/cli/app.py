"""The table of commands and the one place where errors become words.

Only the module of the command that was asked for is imported, so that ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
import logging
import sys

from ad_dinov3 import __version__
from ad_dinov3.errors import AdDinoError

# verb -> (module below ad_dinov3.cli, one line of help), in the order of a user's journey
COMMANDS = {
    "demo": ("demo", "Find the defects in the embedded sample images; needs nothing else."),
    "predict": ("predict", "Score images: maps, masks, regions, overlays and a report."),
    "merge": ("merge", "Join the results of predict --shard."),
    "watch": ("watch", "Score the images of a folder or a camera as they arrive."),
    "train": ("train", "Train adapters on labelled images of other products."),
    "remember": ("remember", "Let a model remember normal images, and save it with them."),
    "calibrate": ("calibrate", "Set a threshold by good images, with a promise of false alarms."),
    "evaluate": ("evaluate", "Measure a model on labelled data sets."),
    "compare": ("compare", "Put result rows side by side, published numbers included."),
    "reproduce": ("reproduce", "Make the paper's tables and figures from what is there."),
    "export": ("export", "Write a model for ONNX Runtime, OpenVINO or torch, proven equal."),
    "serve": ("serve", "Answer requests over HTTP, with a page to drop images on."),
    "workbench": ("workbench", "Look through a folder in the browser, decide, and teach."),
    "benchmark": ("benchmark", "Time models and exported folders beside each other."),
    "convert": ("convert", "Convert between a model folder and a checkpoint of the authors."),
    "datasets": ("datasets", "List, describe and verify data sets."),
    "weights": ("weights", "List, verify and download encoder weights."),
    "cache": ("cache", "List and prune the cache of frozen features."),
    "doctor": ("doctor", "Check this machine: torch, weights, memory, runtimes."),
}
_USAGE = """\
Usage: ad-dinov3 COMMAND [OPTIONS]

Zero-shot visual anomaly detection: where it is, and how sure the model is.

Commands:
{commands}

Options:
  --version  Print the version.
  --help     Print this text; `ad-dinov3 COMMAND --help` explains a command.
"""


def main() -> None:
    """Run the command line: exit code 0 done, 2 wrong usage or a refused input, 3 some images failed, 130 Ctrl-C."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        width = max(map(len, COMMANDS))
        print(_USAGE.format(commands="\n".join(f"  {verb:<{width}}  {line}" for verb, (_, line) in COMMANDS.items())))
        return
    if arguments[0] in {"--version", "-V"}:
        print(f"ad-dinov3 {__version__}")
        return
    verb, *rest = arguments
    if verb not in COMMANDS:
        print(f"error: no command {verb!r}; `ad-dinov3 --help` lists the commands", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # ImageError says it, once and with the file's name
    try:
        app = importlib.import_module(f"ad_dinov3.cli.{COMMANDS[verb][0]}").app
        app(args=rest, prog_name=f"ad-dinov3 {verb}")
    except KeyboardInterrupt:
        sys.exit(130)
    except AdDinoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is read-only or gone: nothing half-written is left
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
