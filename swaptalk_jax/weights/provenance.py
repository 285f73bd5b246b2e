"""Whose codes, whose sound, whose embeddings: what was made by what, checked in one place."""

import os
import pathlib

from data_pipelines.loading.views import VIEWS
from data_pipelines.records import kinds, reader
from data_pipelines.records.kinds import RecordError
from data_pipelines.records.reader import metadata
from swaptalk_jax import errors, sound
from swaptalk_jax.weights import provenance, store


def check_fingerprint(root: str | os.PathLike, kind: str, expected: str) -> None:
    """Refuses codes of another VQGAN: to any network they would be noise.

    Raises:
      RecordError: says which VQGAN made the set, which is wanted, and how to encode again.
    """
    made = metadata(root, kind)
    if made.get("fingerprint") == expected:
        return
    raise RecordError(
        f"{pathlib.Path(root) / kind} was encoded by VQGAN {made.get('fingerprint')}"
        f" ({made.get('vqgan', 'path unknown')}), but VQGAN {expected} is in use; encode again:"
        f" python -m swaptalk_jax.encode --config=<the config in use> --out={root}"
    )


def _check_vqgan(folder, config, fingerprint):
    """Refuses a stage that was trained on another VQGAN; train.py notes which one it was."""
    other = config["vqgan_fingerprint"]
    if other != fingerprint:
        raise errors.CheckpointError(
            f"{folder}: was trained on another VQGAN ({other}, to be bundled: {fingerprint}); "
            "encode again and train this stage again"
        )


def _features(folders, stages):
    """The features of sound (speech.Features) that expert and sync were trained on."""
    features = sound.Features(stages["sync"][1]["data"]["features"])
    for stage in ("expert", "sync"):
        other = provenance.trained_on(stages[stage][1])
        if other != features.fingerprint:
            raise errors.CheckpointError(
                f"{folders[stage]}: was trained on other features of sound ({other}, to be "
                f"bundled: {features.name}, {features.fingerprint}); train this stage again"
            )
    return features


def check(root, features):
    """Refuses codes below `root` whose features of sound are others than `features`.

    Raises RecordError: says which they are, which are wanted, and how to make them.
    """
    known = reader.metadata(root, "codes")
    made = known.get("audio_fingerprint", known["audio"])
    if made != features.fingerprint:
        raise kinds.RecordError(
            f"{root}/codes: its features of sound are {known['audio']} ({made}), but "
            f"{features.name} ({features.fingerprint}) are in use; encode again with the same "
            "--config.data.features"
        )


def trained_on(config):
    """Fingerprint of the features that a finished stage's config was trained on.

    Stages from before there was a choice were trained on log-mel.
    """
    return config.get("sound_fingerprint", "log_mel")


def check_codes(config, view, frozen):
    """Fingerprint of the frozen VQGAN, if there is one.

    Raises RecordError where the codes to train on are another VQGAN's, or the embeddings beside
    them another recogniser's.
    """
    if "vqgan" not in frozen:
        return None
    kind, root = VIEWS[view].kind, config.data.root
    made = reader.metadata(root, kind).get("recogniser")  # sets of before don't say it
    if made and "recogniser" in frozen and made != store.fingerprint(frozen["recogniser"]):
        raise kinds.RecordError(
            f"{root}/{kind}: its embeddings are of another recogniser; encode again with"
            f" --config.frozen.recogniser={config.frozen.recogniser}"
        )
    fingerprint = store.fingerprint(frozen["vqgan"])
    provenance.check_fingerprint(root, kind, fingerprint)
    return fingerprint


def check_sound(config, view):
    """Fingerprint of the features of sound that the stage is to be trained on; None without sound.

    Raises RecordError where the codes hold others, CheckpointError where the expert heard others.
    """
    if VIEWS[view].kind != "codes":
        return None
    features = sound.Features(config.data.features)
    provenance.check(config.data.root, features)
    if "expert" in config.frozen:
        heard = provenance.trained_on(store.load_config(config.frozen.expert))
        if heard != features.fingerprint:
            raise errors.CheckpointError(
                f"{config.frozen.expert}: was trained on other features of sound ({heard}, here: "
                f"{features.name}, {features.fingerprint}); train it again with the same "
                "--config.data.features"
            )
    return features.fingerprint
