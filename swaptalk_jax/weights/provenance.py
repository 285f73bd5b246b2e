"""Whose codes, whose sound: which networks a finished network was trained with.

What a set of records was made by is asked in weights/encoded.py; this module needs no records, so
that whoever loads a bundle waits for no reader of them.
"""

from swaptalk_jax import errors, sound


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


def trained_on(config):
    """Fingerprint of the features that a finished stage's config was trained on.

    Stages from before there was a choice were trained on log-mel.
    """
    return config.get("sound_fingerprint", "log_mel")
