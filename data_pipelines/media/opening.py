"""Media files: opened safely, and whole, or refused in one line (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.logging

from data_pipelines.errors import SwapTalkError

# FFmpeg's own lines ("moov atom not found", x264's statistics) would bury our one clear line. None
# is also the only level without deadlocks: any other makes decoder threads wait for the GIL, which
# a closing container holds while it waits for them.
av.logging.set_level(None)

# What people have, and nothing that opens other files or addresses (playlists, concat scripts):
# a web page may hand us any upload.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,asf,ogg,gif,mxf,nut,dv,"
    "h264,hevc,m4v,ivf,wav,w64,flac,mp3,aac,aiff,au,amr,caf,ac3"
)


class MediaError(SwapTalkError, ValueError):
    """A media file cannot be read or written: one line with the file, what is wrong, what to do."""


@contextmanager
def open_media(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Opens a media file for reading; closes it on leaving. Raises MediaError (also: cut off)."""
    path = Path(path)
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise MediaError(f"{path}: {found}; give the path of a media file")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes); copy or record it again")
    try:
        container = av.open(
            f"file:{path}",  # so that a colon in a name is not taken for a protocol
            options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="replace",
        )
    except PermissionError as error:
        raise MediaError(f"{path}: may not be read; change its permissions") from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path}: is not a video or sound file, or is cut off before its index; "
            "check it in a player or download it again"
        ) from error
    with container:
        _check_whole(container, path)
        yield container


def video_stream(container, path: str | Path):
    """The first stream of moving pictures. Raises MediaError where there is none."""
    pictures = pictures_of(container)
    if not pictures:
        raise MediaError(f"{path}: has no picture, only sound; give a video")
    stream = pictures[0]
    if stream.codec_context is None or not stream.codec_context.width:
        raise MediaError(f"{path}: its picture cannot be decoded; convert it to H.264")
    stream.thread_type = "AUTO"
    return stream


def _check_whole(container, path: Path) -> None:
    """Raises MediaError where an MP4/MOV index points past the end of the file.

    The index stands in front in a "faststart" file, so a broken download opens without complaint.
    """
    if "mov" not in container.format.name:
        return
    size = path.stat().st_size
    for stream in (*container.streams.video, *container.streams.audio):
        entries = stream.index_entries
        whole = sum(entry.pos + entry.size <= size for entry in entries)
        if whole < len(entries):
            kind = "frames" if stream.type == "video" else "packets of sound"
            raise MediaError(
                f"{path}: is cut off: only {whole} of {len(entries)} {kind} are in the file; "
                "copy or download it again"
            )


def pictures_of(container) -> list:
    """Video streams without cover art, which a music file carries as a one-frame video."""
    cover = av.stream.Disposition.attached_pic
    return [s for s in container.streams.video if not s.disposition & cover]
