"""Whose codes, whose sound: which networks a finished network was trained with.

What a set of records was made by is asked in weights/encoded.py; this module needs no records, so
that whoever loads a bundle waits for no reader of them.
"""

from swaptalk_jax import errors, sound
from swaptalk_jax.weights.finished import TEACHER


def _check_vqgan(folder, config, fingerprint):
    """Refuses a stage that was trained on another VQGAN; train.py notes which one it was."""
    other = config["vqgan_fingerprint"]
    if other != fingerprint:
        raise errors.CheckpointError(
            f"{folder}: was trained on another VQGAN ({other}, to be bundled: {fingerprint}); "
            "encode again and train this stage again"
        )


def _features(folders, stages):
    """The features of sound (sound.Features) that expert and sync were trained on."""
    features = sound.Features(stages["sync"][1]["data"]["features"])
    for stage in ("expert", "sync"):
        other = trained_on(stages[stage][1])
        if other != features.fingerprint:
            raise errors.CheckpointError(
                f"{folders[stage]}: was trained on other features of sound ({other}, to be "
                f"bundled: {features.name}, {features.fingerprint}); train this stage again"
            )
    return features


def check_teachers(networks, config, vqgan, sound_heard):
    """Refuses teachers whose results mean something else here than where they were trained.

    networks: weights.finished.FinishedNetwork by slot; config: the student's; vqgan, sound_heard:
    fingerprints of the VQGAN and of the features of sound that the student is trained on; None:
    none. Raises CheckpointError.
    """
    for network in networks.values():
        if not network.name.startswith(TEACHER):
            continue
        other, line = network.config, f"{network.folder}: cannot teach {config.workdir}: it"
        if other.get("vqgan_fingerprint") != vqgan:
            raise errors.CheckpointError(
                f"{line} was trained on codes of another VQGAN ({other.get('vqgan_fingerprint')},"
                f" here: {vqgan}); train the teacher on {config.data.root}"
            )
        if sound_heard is None:
            continue
        if other.get("sound_fingerprint") != sound_heard:
            raise errors.CheckpointError(
                f"{line} was trained on other features of sound ({other.get('sound_fingerprint')},"
                f" here: {sound_heard}); take the same --config.data.features"
            )
        if other["data"]["context"] != config.data.context:
            raise errors.CheckpointError(
                f"{line} hears {other['data']['context']} tokens on either side, here:"
                f" {config.data.context}; take the same --config.data.context"
            )


def trained_on(config):
    """Fingerprint of the features that a finished stage's config was trained on.

    Stages from before there was a choice were trained on log-mel.
    """
    return config.get("sound_fingerprint", "log_mel")
