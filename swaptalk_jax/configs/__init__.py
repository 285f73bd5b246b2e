"""The configs: data only, one file a stage. They are part of the package.

`--config=configs/sync.py:tiny` and `--config=sync:tiny` name the same one wherever a command runs:
a file that is there is taken as it is, else the one of this folder (`located`).
"""

from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
NO_STAGES = ("__init__", "common")


def located(words: Sequence[str]) -> list[str]:
    """A command line in which --config names a file that exists, where it is one of ours.

    words: of the command line. Each --config=FILE:SIZE or --config FILE:SIZE whose FILE is not
    there, but is called configs/NAME.py, NAME.py or NAME after a config of this folder, gets that
    one's path. All else stays as it is.
    """
    found = list(words)
    for i, word in enumerate(found):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            found[i] = f"{flag}={_located(value)}"
        elif i + 1 < len(found):
            found[i + 1] = _located(found[i + 1])
    return found


def _located(value: str) -> str:
    name, colon, size = value.partition(":")
    path = Path(name)
    own = FOLDER / f"{path.stem}.py"
    named = str(path.parent) in (".", "configs") and path.suffix in ("", ".py")
    if path.is_file() or not named or path.stem in NO_STAGES or not own.is_file():
        return value
    return f"{own}{colon}{size}"
