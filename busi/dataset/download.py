"""Gets BUSI from Kaggle, an address or a zip file, verifies it pixel by pixel, and only then moves it into place.

The content of a data set is recorded in a manifest: a CSV with one row for each image or mask, its size and a hash of
its decoded pixels, so that a re-encoded copy is recognised. The BUSI release has params/busi-manifest.csv.
"""

import hashlib
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
import pandas as pd
import requests
from PIL import Image
from tqdm import tqdm

from busi.config import StudyError, find_study_folder
from busi.dataset.catalog import SHOWN_PROBLEMS, read_catalog
from busi.dataset.decode import SUFFIXES, DataError, read_grey, read_mask
from busi.dataset.folders import new_folder
from busi.dataset.layouts import is_clutter
from busi.dataset.phantom import CLASSES

HANDLE = "aryashah2k/breast-ultrasound-images-dataset"
"""Name of the BUSI release on Kaggle."""

PAGE = f"https://www.kaggle.com/datasets/{HANDLE}"

TOKEN = "Kaggle may ask for a token: make one at https://www.kaggle.com/settings, and set KAGGLE_API_TOKEN to it\n"

MANUAL = f"By hand: download the zip in a browser from {PAGE}, then run: busi download --zip FILE"

ADVICE = {
    401: "it asks who you are, or does not know your token",
    403: "it does not let you in: sign in, open the page once and accept the terms of the data set",
    404: "nothing is there: it has been moved or renamed, or the address has a typing mistake",
}
"""What a server's response means, by its HTTP status."""

STALL_SECONDS = 60
"""Seconds without new data after which a download is given up."""

RETRIES = 5
"""Number of times that a broken connection is taken up again."""

PAUSE_SECONDS = 2
"""Seconds to wait before that."""

MAX_FILES = 10_000
MAX_BYTES = 2 * 2**30
"""Limits of a data set, and of its archive and files together while it is fetched. BUSI has 1,578 files, 0.3 GB."""


class Pixels(NamedTuple):
    """Size of a decoded image or mask in pixels, and a hash of its pixels; an unreadable file has size 0."""

    width: int
    height: int
    pixels: str


Manifest = dict[str, Pixels]
"""Pixels of each image and mask of a data set, by its path in the folder, e.g. "benign/benign (1).png"."""


def download(
    out: Path, *, url: str | None = None, archive: Path | None = None, sha256: str | None = None, accept: bool = False
) -> str:
    """Fetch a data set, verify it, move it to ``out`` and return a message; if that fails, nothing is left behind.

    Args:
        out: Folder to make; it must not exist.
        url: Address of a zip file. Without it, and without ``archive``, the release is fetched from Kaggle.
        archive: Zip file on this machine.
        sha256: Hash that the zip file must have.
        accept: Whether to accept a data set that no manifest describes. Its manifest is then written into params/,
            named by the fingerprint of its catalog, so that it is recognised from then on.

    Raises:
        DataError: The data set could not be fetched or is not the expected one; says what to do.
        StudyError: ``out`` exists or cannot be made.
    """
    if url and archive:
        raise DataError(f"--url {url}, --zip {archive}: got both; expected one source")
    if sha256 and not url and not archive:
        raise DataError("--sha256: is of a zip file; expected --url or --zip beside it")
    if archive and not archive.is_file():
        raise DataError(f"{archive}: no such file; expected a zip of the data set\n{MANUAL}")
    params = find_study_folder() / "params"
    release = read_manifest(params / "busi-manifest.csv")
    known = {file: read_manifest(file) for file in sorted(params.glob("*-manifest.csv"))}
    with new_folder(out) as whole, tempfile.TemporaryDirectory(dir=whole.parent) as scratch:
        folder = find_root(_fetch(Path(scratch), url, archive, sha256))
        found = hash_pixels(folder)
        recognised = [file for file, manifest in known.items() if found == manifest]
        if not recognised and not accept:
            raise DataError(_describe_differences(found, release))
        record = recognised[0] if recognised else params / f"{_fingerprint(folder)}-manifest.csv"
        folder.rename(whole)
    if not recognised:
        write_manifest(found, record)
    return f"{out}: {len(found)} images and masks, each with the pixels that params/{record.name} lists"


def hash_pixels(folder: Path) -> Manifest:
    """Hash the decoded pixels of all images and masks below ``folder``.

    Images are hashed as uint8 grey and masks (``*_mask*``) as bits, as the study reads them, so that a file stored in
    another format or mode has the same hash.
    """
    manifest = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        is_image = file.suffix.lower() in SUFFIXES and file.is_file()
        if is_image and not any(map(is_clutter, path.parts)):
            manifest[path.as_posix()] = _hash_file(file)
    return manifest


def read_manifest(file: Path) -> Manifest:
    """Read a manifest from its CSV."""
    # Without a type, some hashes would be read as numbers.
    table = pd.read_csv(file, dtype={"pixels": str})
    return {row.file: Pixels(row.width, row.height, row.pixels) for row in table.itertuples()}


def write_manifest(manifest: Manifest, file: Path) -> None:
    """Write a manifest as CSV, one row for each file: `file`, `width`, `height`, `pixels`."""
    rows = [(path, *pixels) for path, pixels in manifest.items()]
    pd.DataFrame(rows, columns=["file", *Pixels._fields]).to_csv(file, index=False, lineterminator="\n")


def list_differences(found: Manifest, expected: Manifest) -> list[str]:
    """List the files in which a data set differs from a manifest, each with its difference."""
    differences = []
    # Missing files come last, because those of a partial copy would hide the rest.
    for file in [*sorted(found), *sorted(expected.keys() - found)]:
        if file not in found:
            differences.append(f"{file}: missing")
        elif file not in expected:
            differences.append(f"{file}: not in the release")
        elif not found[file].width:
            differences.append(f"{file}: not a readable image")
        elif found[file] != expected[file]:
            here = found[file]
            there = expected[file]
            sizes = f"{here.width} x {here.height}, in the release {there.width} x {there.height}"
            differences.append(f"{file}: other pixels ({sizes})")
    return differences


def describe_part(found: Manifest, release: Manifest) -> str:
    """Describe in words how much of the release a data set holds, by names unless all pixels are the release's."""
    names = {Path(file).name for file in found}
    images = [Path(file) for file in release if "_mask" not in file]
    present = [image for image in images if image.name in names]
    if sorted(found.values()) == sorted(release.values()):
        return "the BUSI release with its files under other names"
    if len(present) == len(images):
        return "a changed copy of the BUSI release"
    if not present:
        return f"not BUSI: it holds none of the {len(images)} images of the release by name"
    counts = []
    for image_class in CLASSES:
        here = sum(image.parent.name == image_class for image in present)
        released = sum(image.parent.name == image_class for image in images)
        counts.append(f"{image_class} {here} of {released}")
    return f"a partial copy of the BUSI release: {len(present)} of {len(images)} images ({', '.join(counts)})"


def find_root(folder: Path) -> Path:
    """Return the folder that holds the data set: ``folder``, or the first one inside it that is not a mere wrapper."""
    while True:
        entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
        if len(entries) != 1:
            return folder
        # In a data set of one class, the folder of that class is not a wrapper.
        inner = entries[0]
        if not inner.is_dir() or inner.name in CLASSES:
            return folder
        folder = inner


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into a new ``folder``.

    Raises:
        DataError: The file is not a whole zip file, or exceeds `MAX_FILES` or `MAX_BYTES`. Only if an entry is damaged
            have those before it been unpacked.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            size = sum(entry.file_size for entry in entries)
            if len(entries) > MAX_FILES or size > MAX_BYTES:
                raise ValueError(f"{len(entries)} files of {size} bytes; allowed are {MAX_FILES} of {MAX_BYTES}")
            # Of each entry, no more is read than the size in its header. Paths that lead out of the folder lose what
            # leads out of it, and a link becomes a file that holds the link's target as text.
            opened.extractall(folder)
    # A file name that is too long or a full disk raises OSError, encryption raises RuntimeError.
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); expected a whole zip file\n{MANUAL}") from error


def _fetch(scratch: Path, url: str | None, archive: Path | None, sha256: str | None) -> Path:
    """Fetch a data set into ``scratch`` and return the folder that it was unpacked into."""
    if not url and not archive:
        # Imported here, because nothing else needs it.
        import kagglehub

        # Not its `output_dir`, where a download that breaks off could not continue.
        os.environ["KAGGLEHUB_CACHE"] = str(scratch)
        return _watch(partial(kagglehub.dataset_download, HANDLE), scratch, PAGE, TOKEN)
    if url:
        archive = _watch(partial(_download_rest, url, scratch / "archive.zip"), scratch, url)
    if sha256:
        with archive.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != sha256.lower():
            raise DataError(f"{url or archive}: another file than the one of SHA-256 {sha256}: fetch it anew\n{MANUAL}")
    unpack(archive, scratch / "unpacked")
    return scratch / "unpacked"


def _download_rest(url: str, file: Path) -> Path:
    """Download the part of a file that is missing at its end, or all of it if the server cannot begin in the middle."""
    have = file.stat().st_size if file.exists() else 0
    # Not compressed, because a range is counted in bytes of the file itself.
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    # Without a timeout, because `_watch` gives up when nothing arrives.
    with requests.get(url, headers=headers, stream=True, timeout=None) as response:
        response.raise_for_status()
        mode = "ab" if response.status_code == requests.codes.partial_content else "wb"
        length = int(response.headers.get("Content-Length", 0)) or None
        # The progress bar is shown on a terminal only.
        with file.open(mode) as part, tqdm(total=length, unit="B", unit_scale=True, disable=None) as bar:
            for piece in response.iter_content(2**16):
                part.write(piece)
                bar.update(len(piece))
    return file


def _persist(fetch: Callable[[], str | Path]) -> Path:
    """Call ``fetch``, and call it again whenever the connection breaks off, so that it continues its download."""
    for _ in range(RETRIES):
        with suppress(requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return Path(fetch())
        time.sleep(PAUSE_SECONDS)
    return Path(fetch())


def _watch(fetch: Callable[[], str | Path], folder: Path, source: str, hint: str = "") -> Path:
    """Call ``fetch``, which writes into ``folder``, and give up if nothing arrives for long, or too much arrives.

    The libraries that download limit neither time nor size, and kagglehub waits forever.

    Raises:
        DataError: The download failed; names ``source`` and says what to do.
    """
    future = Future()

    def work() -> None:
        try:
            future.set_result(_persist(fetch))
        # Errors of any kind, because the libraries raise many; the main thread reports them.
        except Exception as error:
            future.set_exception(error)

    # A daemon, so that a stalled download does not keep the program from ending.
    Thread(target=work, daemon=True).start()
    size = 0
    arrived = time.monotonic()
    failure = None
    while not failure and not wait([future], timeout=0.5).done:
        if time.monotonic() - arrived > STALL_SECONDS:
            failure = TimeoutError(f"nothing has arrived for {STALL_SECONDS} seconds")
        # A file may be renamed while the folder is measured, which is then measured in the next round.
        with suppress(FileNotFoundError):
            sizes = [file.stat().st_size for file in folder.rglob("*")]
            if len(sizes) > MAX_FILES or sum(sizes) > MAX_BYTES:
                failure = ValueError(f"more than {MAX_FILES} files or {MAX_BYTES} bytes arrived")
            if sum(sizes) != size:
                size = sum(sizes)
                arrived = time.monotonic()
    failure = failure or future.exception()
    if failure:
        raise DataError(f"{source}: {_explain(failure)}\n{hint}{MANUAL}") from failure
    return future.result()


def _explain(error: Exception) -> str:
    """Describe in words why a download failed."""
    response = getattr(error, "response", None)
    if response is not None:
        advice = ADVICE.get(response.status_code, "its server is in trouble: try again later")
        return f"the server answered {response.status_code}, {advice}"
    if isinstance(error, requests.RequestException):
        return f"the connection failed or broke off ({type(error).__name__}): is there a network?"
    return f"{error} ({type(error).__name__})"


def _describe_differences(found: Manifest, release: Manifest) -> str:
    differences = list_differences(found, release)
    shown = "\n  ".join(differences[:SHOWN_PROBLEMS])
    more = f"\n  ... and {len(differences) - SHOWN_PROBLEMS} more" if len(differences) > SHOWN_PROBLEMS else ""
    return (
        f"this is {describe_part(found, release)}; {len(differences)} files differ, and nothing was kept:\n"
        f"  {shown}{more}\n{MANUAL}, or take this data set as it is with --accept"
    )


def _fingerprint(folder: Path) -> str:
    """Return the fingerprint of a data set's catalog; raise DataError if the study cannot read the data set."""
    try:
        return read_catalog(folder, expected=None).fingerprint
    except StudyError as error:
        # The temporary folder no longer exists when the message is read.
        raise DataError(str(error).replace(str(folder), "the data set")) from error


def _hash_file(file: Path) -> Pixels:
    try:
        pixels = read_mask(file) if "_mask" in file.stem else read_grey(file)
    # Such a file is listed among the differences; a small file may claim to be an image of gigabytes.
    except (StudyError, Image.DecompressionBombError):
        return Pixels(0, 0, "unreadable")
    height, width = pixels.shape
    content = np.packbits(pixels) if pixels.dtype == bool else pixels
    return Pixels(width, height, hashlib.sha256(content.tobytes()).hexdigest()[:16])
