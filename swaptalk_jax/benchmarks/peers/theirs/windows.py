"""Windows of five frames, a window of other frames and the sound, as PyTorch loads them.

of_pictures: Wav2Lip's own Dataset, which decodes ten JPEGs and computes the spectrogram of the
whole sound for each example. of_videos: a Dataset written here, which opens an mp4 with cv2 (as
Wav2Lip's preprocess.py does) at two random places, and has the spectrograms in memory.
Wav2Lip calls librosa's mel filters by position, which newer librosa refuses: they are handed on by
name. The folder of media is the one that benchmarks/peers/media.py writes.
"""

import os
import random
import sys

import settings
import torch

WINDOW, SPECTROGRAM = 5, (80, 16)  # frames; bands and steps of a window's sound
AHEAD = 2  # batches that each worker makes ahead


def of_pictures(fields):
    """(settle, work, facts) of a DataLoader over Wav2Lip's Dataset."""
    import librosa.filters

    mel = librosa.filters.mel
    librosa.filters.mel = lambda sr, n_fft, **more: mel(sr=sr, n_fft=n_fft, **more)
    sys.argv = ["train", "--data_root=.", "--checkpoint_dir=.", "--syncnet_checkpoint_path=."]
    from wav2lip_train import Dataset

    if fields is None:
        return None
    os.chdir(fields["media"])  # its lists of clips are named from where it runs
    return _loaded(Dataset("train"), fields)


def of_videos(fields):
    """(settle, work, facts) of a DataLoader over mp4 files."""
    import cv2
    from hparams import hparams

    if fields is None:
        return None
    cv2.setNumThreads(0)  # workers are processes: threads of each would fight for the cores
    names = [name for name in sorted(os.listdir(fields["media"])) if name.endswith(".mp4")]
    paths = [os.path.join(fields["media"], name) for name in names]
    return _loaded(Videos(paths, hparams.img_size, cv2), fields)


class Videos(torch.utils.data.Dataset):
    """One example a video: two windows [3 5 s s], and a random spectrogram from memory."""

    def __init__(self, paths, size, cv2):
        self.paths, self.size, self.cv2 = paths, size, cv2
        self.sound = torch.randn(len(paths), 200, *SPECTROGRAM)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        index = random.randrange(len(self))
        video = self.cv2.VideoCapture(self.paths[index])
        frames = int(video.get(self.cv2.CAP_PROP_FRAME_COUNT))
        starts = [random.randrange(frames - WINDOW) for _ in range(2)]
        pictures = torch.cat([self._window(video, start) for start in starts])
        video.release()
        return pictures, self.sound[index, starts[0] % 200]

    def _window(self, video, start):
        video.set(self.cv2.CAP_PROP_POS_FRAMES, start)
        frames = []
        for _ in range(WINDOW):
            found, frame = video.read()
            if not found:
                raise OSError(f"a video of {len(self.paths)} ends before frame {start + WINDOW}")
            frames.append(torch.from_numpy(self.cv2.resize(frame, (self.size, self.size))))
        return torch.stack(frames).permute(3, 0, 1, 2).float() / 255


class _Again(torch.utils.data.Sampler):
    """The same few examples again and again: a Dataset here draws for itself."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        while True:
            yield from range(self.count)


def _loaded(dataset, fields):
    known, workers = settings.begin(), len(os.sched_getaffinity(0))
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=fields["batch"],
        sampler=_Again(len(dataset)),
        num_workers=workers,
        prefetch_factor=AHEAD,
    )
    batches = iter(loader)

    def settle():
        for _ in range(AHEAD * workers):  # what was made meanwhile would flatter it
            next(batches)

    def work():
        for _ in range(fields["batches"]):
            next(batches)

    return settle, work, known | {"workers": workers}
