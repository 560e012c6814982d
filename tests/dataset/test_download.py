"""Getting the data: every way in which it can fail, against a local server and through the real kagglehub."""

import doctest
import io
import json
import stat
import struct
import sys
import time
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from PIL import Image
from small_study import read_files

from busi import cli
from busi.config import StudyError
from busi.dataset import catalog, download

pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = REPOSITORY / "params" / "busi-manifest.csv"

BY_HAND = "By hand: download the zip in a browser from https://www.kaggle.com/datasets/aryashah2k/"


@pytest.fixture(autouse=True)
def study(here, phantom_dir, monkeypatch):
    """Make a study whose release is the twelve phantoms, on a machine that nobody has set up for Kaggle.

    Kaggle is "http://localhost", its own environment for tests; a test that names a proxy for it is what answers.
    """
    for name in ("HOME", "KAGGLE_CONFIG_DIR"):
        monkeypatch.setenv(name, str(here))
    for name in (
        "KAGGLE_API_TOKEN",
        "KAGGLE_USERNAME",
        "KAGGLE_KEY",
        "http_proxy",
        "HTTP_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    download.write_manifest(download.hash_pixels(phantom_dir), here / "params" / "busi-manifest.csv")
    return here


@pytest.fixture
def release(phantom_dir) -> bytes:
    """Pack the phantoms as Kaggle packs the release."""
    return pack({f"Dataset_BUSI_with_GT/{path}": content for path, content in read_files(phantom_dir).items()})


def pack(files: dict) -> bytes:
    """Pack files, named by a path or a whole ZipInfo, without any of the checks that an archiver makes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def list_tree(folder) -> set[str]:
    """List all files and folders but the caches."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {path for path in paths if not path.startswith("build")}


# Server


@pytest.fixture
def server():
    """Start a server whose `answer` the test sets: a function of the request handler."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def do_POST(self):
            # Kaggle's interface: first the number of the newest version is asked for, then its files.
            self.rfile.read(int(self.headers["Content-Length"]))
            asks_version = self.path.endswith("GetDataset") and server.answer.__name__ != "refuse"
            (send_version if asks_version else server.answer)(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.closing = Event()
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def send_version(handler):
    send(handler, json.dumps({"currentVersionNumber": 1}).encode(), kind="application/json")


def send(handler, content: bytes, kind="application/zip", length=None):
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(length or len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def serve(content: bytes):
    return lambda handler: send(handler, content)


def cut_once(content: bytes, starts: list[int]):
    """Break off in the middle of what is asked for first, and note from which byte on the rest is asked for."""

    def answer(handler):
        asked = handler.headers["Range"] or "bytes=0-"
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start:] if start else content[: len(content) // 2])
        starts.append(start)

    return answer


def status(code: int):
    def refuse(handler):
        handler.send_error(code)

    return refuse


def stall(handler):
    send(handler, b"PK" * 1000, length=10_000)
    handler.wfile.flush()
    handler.server.closing.wait(30)


def truncate(handler):
    send(handler, b"PK" * 1000, length=10_000)


def from_url(server, **options):
    return download.download(server.out, url=f"http://127.0.0.1:{server.server_port}/busi.zip", **options)


def from_kaggle(server, **options):
    return download.download(server.out, **options)


@pytest.fixture(params=[from_url, from_kaggle])
def fetch(request, server, study, monkeypatch):
    """Return a function that fetches from the server, by its address or through kagglehub."""
    server.out = study / "data" / "busi"
    if request.param is from_kaggle:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    before = list_tree(study)

    def check_and_fetch(**options):
        try:
            return request.param(server, **options)
        except StudyError:
            assert list_tree(study) == before, "left behind"
            raise

    check_and_fetch.name = request.param.__name__
    return check_and_fetch


def test_the_release_is_fetched_verified_and_moved_into_place(server, fetch, release, phantom_dir):
    server.answer = serve(release)
    assert "25 images and masks" in fetch()
    assert read_files(server.out) == read_files(phantom_dir)
    assert [path.name for path in server.out.parent.iterdir()] == ["busi"]


def test_a_download_that_breaks_off_continues_where_it_was(server, fetch, release, phantom_dir):
    starts = []
    server.answer = cut_once(release, starts)
    fetch()
    assert read_files(server.out) == read_files(phantom_dir)
    # Kagglehub asks for the whole again, and breaks that off to ask for the rest.
    assert starts[-1] == max(starts) and set(starts[:-1]) == {0}
    assert 0.4 * len(release) < starts[-1] <= 0.5 * len(release)


def test_a_server_that_cannot_continue_starts_again(server, fetch, release, phantom_dir):
    lengths = iter([len(release) // 2, len(release) // 3])
    server.answer = lambda handler: send(handler, release[: next(lengths, None)], length=len(release))
    fetch()
    assert read_files(server.out) == read_files(phantom_dir)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(401), "answered 401, it asks who you are, or does not know your token"),
        (status(403), "answered 403, it does not let you in: sign in, open the page once and accept the terms"),
        (status(404), "answered 404, nothing is there"),
        (status(500), "answered 500, its server is in trouble: try again later"),
        (truncate, "the connection failed or broke off"),
        (stall, "nothing has arrived for 1 seconds"),
    ],
    ids=["401", "403", "404", "500", "truncated", "stall"],
)
def test_a_failing_server_is_told_with_the_way_by_hand(server, fetch, answer, said, monkeypatch):
    monkeypatch.setattr(download, "STALL_SECONDS", 1)
    server.answer = answer
    with pytest.raises(StudyError) as raised:
        fetch()
    assert said in str(raised.value)
    assert BY_HAND in str(raised.value)
    assert ("Kaggle may ask for a token: make one" in str(raised.value)) == (fetch.name == "from_kaggle")


def test_a_token_is_sent_to_kaggle_and_to_nobody_else(server, fetch, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    sent = []

    def refuse(handler):
        sent.append(handler.headers["Authorization"])
        handler.send_error(403)

    server.answer = refuse
    with pytest.raises(StudyError, match="answered 403"):
        fetch()
    assert sent == ["Bearer secret" if fetch.name == "from_kaggle" else None]


def test_no_network_is_told(server, fetch):
    server.shutdown()
    server.server_close()
    with pytest.raises(StudyError, match=r"the connection failed or broke off .*is there a network"):
        fetch()


def test_a_page_in_place_of_the_file_is_told(server, fetch):
    server.answer = lambda handler: send(handler, b"<html>Please sign in</html>", kind="text/html")
    with pytest.raises(StudyError, match=BY_HAND):
        fetch()


def test_a_download_without_end_is_stopped(server, fetch, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 10**6)

    def pour(handler):
        send(handler, b"", length=10**12)
        while not handler.server.closing.is_set():
            handler.wfile.write(b"\0" * 2**20)
            time.sleep(0.05)

    server.answer = pour
    with pytest.raises(StudyError, match="more than 10000 files or 1000000 bytes arrived"):
        fetch()


def test_a_wrong_checksum_is_told(server, study, release):
    server.out, server.answer = study / "busi", serve(release)
    with pytest.raises(StudyError, match="another file than the one of SHA-256 0123"):
        from_url(server, sha256="0123")
    assert not server.out.exists()


def test_an_address_that_is_none_is_told(study):
    with pytest.raises(StudyError, match="gopher"):
        download.download(study / "busi", url="gopher://nowhere/busi.zip")


# Archives


def link_entry() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("benign/link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def encrypted() -> bytes:
    packed = bytearray(pack({"a.png": b"a"}))
    packed[6] |= 1  # the flag, in the entry's header and in the directory at the end
    packed[packed.index(b"PK\1\2") + 8] |= 1
    return bytes(packed)


def damaged() -> bytes:
    """Flip the compressed bytes of an entry."""
    packed = bytearray(pack({"a.png": bytes(range(256)) * 40}))
    packed[60:90] = bytes(byte ^ 0xFF for byte in packed[60:90])
    return bytes(packed)


HOSTILE = {
    "bomb": (pack({"bomb.png": b"\0" * 2_000_000}), "1 files of 2000000 bytes; allowed are 50 of 1000000"),
    "many": (pack({f"{k}.png": b"" for k in range(51)}), "51 files of 0 bytes; allowed are 50 of 1000000"),
    "encrypted": (encrypted(), "encrypted"),
    "damaged": (damaged(), "cannot be unpacked"),
    "no_zip": (b"<html>Please sign in</html>", "File is not a zip file"),
    "empty": (b"", "File is not a zip file"),
    "cut": (pack({"a.png": b"a" * 1000})[:-30], "File is not a zip file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_zip_is_refused_and_nothing_stays(study, name, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 10**6)
    monkeypatch.setattr(download, "MAX_FILES", 50)
    content, said = HOSTILE[name]
    archive = study / "given.zip"
    archive.write_bytes(content)
    before = list_tree(study)
    with pytest.raises(StudyError, match=said) as raised:
        download.download(study / "data" / "busi", archive=archive)
    assert str(raised.value).startswith(f"{archive}: cannot be unpacked")
    assert BY_HAND in str(raised.value)
    assert list_tree(study) == before


def test_entries_that_lead_out_of_the_folder_are_unpacked_inside_of_it(study):
    outside = ["../../above.png", "benign/../../up.png", "/absolute.png", "C:/drive.png", "a\\..\\..\\windows.png"]
    archive = study / "given.zip"
    archive.write_bytes(pack(dict.fromkeys(outside, b"x") | {link_entry(): b"/etc/passwd"}))
    before = list_tree(study.parent)
    download.unpack(archive, study / "unpacked")
    assert {path for path in list_tree(study.parent) - before if "unpacked" not in path} == set()
    files = [path for path in (study / "unpacked").rglob("*") if not path.is_dir()]
    assert len(files) == 6 and not any(file.is_symlink() for file in files)


def test_an_entry_larger_than_it_says_is_refused(study):
    """A bomb that lies: the directory states 10 bytes for a megabyte."""
    packed = pack({"bomb.png": b"\0" * 10**6})
    lying = packed.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != packed
    archive = study / "given.zip"
    archive.write_bytes(lying)
    with pytest.raises(StudyError, match="cannot be unpacked"):
        download.unpack(archive, study / "unpacked")
    assert all(file.stat().st_size <= 10 for file in (study / "unpacked").rglob("*.png"))


def test_a_hostile_zip_from_kaggle_writes_nothing_outside(server, study, monkeypatch):
    """Kagglehub unpacks by itself; what it makes of such paths is inside, and is no release."""
    server.out, server.answer = study / "data" / "busi", serve(pack({"../../above.png": b"x", link_entry(): b"/etc"}))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    before = list_tree(study.parent)
    with pytest.raises(StudyError, match="not BUSI"):
        from_kaggle(server)
    assert list_tree(study.parent) - {"study/build"} == before


# Pixels


@pytest.fixture
def take(study):
    """Return a function that packs files and takes the zip as a data set."""

    def run(files: dict[str, bytes], **options) -> str:
        archive = study / "given.zip"
        archive.write_bytes(pack(files))
        return download.download(study / "data" / "busi", archive=archive, **options)

    return run


def encode(pixels, mode="L", kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def test_a_copy_encoded_another_way_is_recognised(take, phantom_dir, study):
    files = {}
    for path in read_files(phantom_dir):
        pixels = catalog.read_grey(phantom_dir / path)
        files[path] = encode(pixels, "1" if "_mask" in path else "RGBA")
    assert files != read_files(phantom_dir)
    assert take(files).endswith("each with the pixels that params/busi-manifest.csv lists")


def test_one_changed_pixel_is_told_by_its_file(take, phantom_dir, study):
    files = read_files(phantom_dir)
    image = catalog.read_grey(phantom_dir / "benign" / "benign (1).png").copy()
    image[5, 7] ^= 1
    mask = catalog.read_grey(phantom_dir / "benign" / "benign (3)_mask.png").copy()
    mask[0, 0] = 255 - mask[0, 0]
    files["benign/benign (1).png"] = encode(image)
    files["benign/benign (3)_mask.png"] = encode(mask)
    files["benign/benign (4).png"] = b"no image"
    files["benign/benign (99).png"] = encode(np.zeros((4, 6), np.uint8))
    del files["normal/normal (1)_mask.png"]
    with pytest.raises(StudyError) as raised:
        take(files)
    size = f"{image.shape[1]} x {image.shape[0]}"
    told = str(raised.value).splitlines()
    assert told[0] == "this is a changed copy of the BUSI release; 5 files differ, and nothing was kept:"
    assert told[1] == f"  benign/benign (1).png: other pixels ({size}, in the release {size})"
    assert told[2].startswith("  benign/benign (3)_mask.png: other pixels")
    assert told[3:6] == [
        "  benign/benign (4).png: not a readable image",
        "  benign/benign (99).png: not in the release",
        "  normal/normal (1)_mask.png: missing",
    ]
    assert "--accept" in told[6]
    assert not (study / "data").exists()


def test_an_image_that_claims_gigabytes_is_not_decoded(take, phantom_dir):
    files = read_files(phantom_dir)
    png = bytearray(files["benign/benign (1).png"])
    png[16:24] = struct.pack(">II", 60_000, 60_000)  # width and height, before their checksum
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(StudyError, match=r"1 files differ, .*\n  benign/benign \(1\).png: not a readable image"):
        take(files | {"benign/benign (1).png": bytes(png)})


def test_a_partial_copy_is_named_as_such(take, phantom_dir):
    """The malignant images alone circulate as "BUSI"; two folders of it, with equal names in both."""
    files = {}
    for path, content in read_files(phantom_dir).items():
        if path.startswith("malignant") and "_mask" not in path:
            files[path.replace("malignant/", "BUSI/images/")] = content
            files[path.replace("malignant/", "BUSI/masks/0/")] = content
    with pytest.raises(
        StudyError,
        match=r"this is a partial copy of the BUSI release: 4 of 12 images "
        r"\(benign 0 of 6, malignant 4 of 4, normal 0 of 2\)",
    ):
        take(files)


def test_a_copy_with_other_folders_is_named_as_such(take, phantom_dir):
    files = {path.replace("/", "/images/"): content for path, content in read_files(phantom_dir).items()}
    with pytest.raises(StudyError, match="this is the BUSI release with its files under other names"):
        take(files)


def test_another_data_set_is_refused_then_accepted_then_recognised(take, phantom_dir, study):
    files = read_files(phantom_dir)
    del files["benign/benign (6).png"], files["benign/benign (6)_mask.png"]
    with pytest.raises(StudyError, match="a partial copy"):
        take(files)
    take(files, accept=True)
    fingerprint = catalog.read_catalog(study / "data" / "busi", expected=None).fingerprint
    record = study / "params" / f"{fingerprint}-manifest.csv"
    assert download.read_manifest(record) == download.hash_pixels(study / "data" / "busi")
    (study / "data" / "busi").rename(study / "data" / "before")
    assert take(files).endswith(f"params/{fingerprint}-manifest.csv lists")


def test_a_data_set_that_the_study_cannot_read_is_not_accepted(take, study):
    with pytest.raises(StudyError, match="the data set"):
        take({"some/picture.png": encode(np.zeros((4, 6), np.uint8))}, accept=True)
    assert list_tree(study) == {"params", "params/busi-manifest.csv", "notebooks", "given.zip"}


def test_clutter_of_archivers_is_no_difference(take, phantom_dir):
    files = {f"Dataset_BUSI_with_GT/{path}": content for path, content in read_files(phantom_dir).items()}
    take(files | {"__MACOSX/._benign (1).png": b"", "Dataset_BUSI_with_GT/benign/.DS_Store": b""})


# Places


def test_nothing_is_overwritten_and_no_option_is_passed_over(study, release):
    (study / "given.zip").write_bytes(release)
    out = study / "data"
    out.symlink_to("nowhere")
    with pytest.raises(StudyError, match="data: exists; nothing is overwritten: remove it or name another folder"):
        download.download(out, archive=study / "given.zip")
    with pytest.raises(
        StudyError, match=r"given.zip/busi: cannot be made .*give a folder in a place that can be written to"
    ):
        download.download(study / "given.zip" / "busi", archive=study / "given.zip")
    with pytest.raises(StudyError, match="got both; expected one source"):
        download.download(study / "busi", archive=study / "given.zip", url="http://localhost/")
    with pytest.raises(StudyError, match="--sha256: is of a zip file"):
        download.download(study / "busi", sha256="0123")
    with pytest.raises(StudyError, match=r"gone.zip: no such file; expected a zip of the data set\nBy hand"):
        download.download(study / "busi", archive=study / "gone.zip")
    assert list_tree(study) == {"params", "params/busi-manifest.csv", "notebooks", "given.zip", "data"}


def test_the_command_ends_in_one_message_and_with_code_2(study, monkeypatch, capsys):
    (study / "given.zip").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["busi", "download", "--zip", "given.zip"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr() == (
        "",
        f"busi: given.zip: cannot be unpacked (File is not a zip file); expected a whole zip file\n{download.MANUAL}\n",
    )


# The release


def test_the_release_has_the_pixels_that_its_manifest_lists(busi_dir):
    listed = download.read_manifest(MANIFEST)
    assert len(listed) == 780 + 798
    assert download.list_differences(download.hash_pixels(busi_dir), listed) == []


def test_the_data_card_counts_what_the_manifest_lists(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    card = str(REPOSITORY / "DATA.md")
    counted = doctest.testfile(card, module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert counted.attempted
    assert not counted.failed


def test_the_210_malignant_images_are_a_partial_copy():
    listed = download.read_manifest(MANIFEST)
    malignant = {file: pixels for file, pixels in listed.items() if file.startswith("malignant/")}
    assert download.describe_part(malignant, listed) == (
        "a partial copy of the BUSI release: 210 of 780 images (benign 0 of 437, malignant 210 of 210, normal 0 of 133)"
    )
