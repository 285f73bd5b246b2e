"""A peer's process: makes one of its networks or loaders ready, then times it turn by turn.

    <python> main.py TASK CHECKOUT FIELDS

TASK: a name of TASKS. CHECKOUT: the folder of the peer's code. FIELDS: JSON of the shapes, or null:
then all that the task imports is imported, and nothing is built.
The process writes a line of JSON once it is ready, {"ready": facts}, and for every line that it
reads one more, {"seconds": s}. What it cannot do ends it with {"error": one line} and exit code 2.
What a checkout prints goes to stderr.
"""

import importlib
import json
import os
import sys
import time

# Task -> (module of this folder, its function). A function takes the fields, imports what it needs,
# and returns (settle, work, facts): settle() makes ready for a fair turn, work() is what is timed.
TASKS = {
    "vqgan_forward": ("vqgan", "forward"),
    "vqgan_step": ("vqgan", "step"),
    "unet_forward": ("unet", "forward"),
    "unet_step": ("unet", "step"),
    "latentsync_forward": ("unet", "latentsync_forward"),
    "latentsync_step": ("unet", "latentsync_step"),
    "jpg_windows": ("windows", "of_pictures"),
    "mp4_windows": ("windows", "of_videos"),
    "chain": ("chain", "swap_then_sync"),
}
# Modules that pip knows by another name.
PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow"}


def run(task, fields, lines, tell):
    """Does the task turn by turn, a turn for each of `lines`."""
    module, function = TASKS[task]
    prepare = getattr(importlib.import_module(module), function)
    made = prepare(fields)
    if made is None:
        return tell({"ready": {}})
    settle, work, facts = made
    work()  # memory is taken, kernels are chosen
    tell({"ready": facts})
    for _ in lines:
        settle()
        began = time.perf_counter()
        work()
        tell({"seconds": time.perf_counter() - began})
    return None


def reason(error):
    """One line for an error, with what to install where a module is missing."""
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        package = PACKAGES.get(package, package)
        python = sys.executable
        return f"needs the module {error.name}: {python} -m pip install {package}"
    return f"{type(error).__name__}: {text}"


def main(arguments):
    """The command; returns the exit code."""
    task, checkout, fields = arguments
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer):
        print(json.dumps(answer), file=told, flush=True)

    sys.path.insert(0, checkout)
    try:
        run(task, json.loads(fields), sys.stdin, tell)
    except Exception as error:  # whatever a checkout raises
        tell({"error": reason(error)})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
