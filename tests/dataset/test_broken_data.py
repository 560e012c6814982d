"""A corpus of broken data sets: each ends in one message, which names the file and what was found, and in code 2."""

import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from busi import cli

SHAPE = (24, 32)
INSIDE = np.zeros(SHAPE, bool)
INSIDE[6:12, 8:20] = True
RANDOM = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def data(tmp_path):
    """Write two benign images, two malignant and one normal, in BUSI's layout."""
    folder = tmp_path / "data"
    for stem in ("benign (1)", "benign (2)", "malignant (1)", "malignant (2)", "normal (1)"):
        file = folder / stem.split()[0] / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        save(file, RANDOM)
        save(mask_of(file), INSIDE & (file.parent.name != "normal"))
    return folder


def save(file, pixels, **options):
    Image.fromarray(np.asarray(pixels)).save(file, **options)
    return file


def mask_of(file):
    return file.with_name(f"{file.stem}_mask.png")


def verify(monkeypatch, capsys, folder, *options):
    """Run `busi verify` and return its exit code and what it says."""
    monkeypatch.setattr(sys, "argv", ["busi", "verify", str(folder), *options])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, capsys.readouterr()


IMAGE, MASK = "benign/benign (1).png", "benign/benign (1)_mask.png"
CORPUS = {}


def broken(file, told):
    """Register a function that breaks a data set: the message names ``file`` and says ``told``."""

    def register(function):
        CORPUS[function.__name__] = (function, file, told)
        return function

    return register


def replace(name, file, told, content):
    """Register data sets with a file of other bytes or pixels."""

    def change(folder):
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        else:
            save(folder / file, content)

    CORPUS[name] = (change, file, told)


def colour(*channels):
    return INSIDE[..., None] * np.array(channels, np.uint8)


# Files that are no images
for role, target in (("image", IMAGE), ("mask", MASK)):
    replace(f"an empty {role}", target, "not a readable image", b"")
    replace(f"a web page for {role}", target, "not a readable image", b"<html>404 not found</html>")
    replace(f"a head alone for {role}", target, "not a readable image", b"\x89PNG\r\n\x1a\n")
    replace(f"a GIF for {role}", target, "not a readable image", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;")
    replace(
        f"a Git LFS pointer for {role}", target, "not a readable image", b"version https://git-lfs.github.com/spec/v1"
    )


@broken(IMAGE, "not a readable image")
def a_truncated_image(folder):
    file = folder / IMAGE
    file.write_bytes(file.read_bytes()[:-200])


@broken(MASK, "not a readable image")
def a_truncated_mask(folder):
    file = folder / MASK
    file.write_bytes(file.read_bytes()[:45])


@broken(IMAGE, "not a readable image")
def a_changed_byte(folder):
    content = bytearray((folder / IMAGE).read_bytes())
    content[-40] ^= 255
    (folder / IMAGE).write_bytes(content)


@broken(IMAGE, "decompression bomb")
def a_decompression_bomb(folder):
    Image.new("1", (20_000, 20_000)).save(folder / IMAGE)


@broken(IMAGE, "2 images in one file; expected one")
def an_animated_image(folder):
    other = Image.fromarray(255 - RANDOM)
    save(folder / IMAGE, RANDOM, save_all=True, append_images=[other])


@broken("benign/benign (1).tif", "2 images in one file; expected one")
def a_tiff_of_two_pages(folder):
    (folder / IMAGE).unlink()
    other = Image.fromarray(255 - RANDOM)
    save(folder / "benign" / "benign (1).tif", RANDOM, save_all=True, append_images=[other])


@broken(IMAGE, "7 x 24 pixels; expected at least 8 each")
def a_strip_for_an_image(folder):
    save(folder / IMAGE, RANDOM[:, :7])
    save(folder / MASK, INSIDE[:, :7] * np.uint8(255))


@broken(IMAGE, "CMYK pixels; expected grey or RGB")
def cmyk_under_png(folder):
    Image.fromarray(RANDOM).convert("CMYK").save(folder / IMAGE, "JPEG")


@broken("benign/benign (1).tif", "F pixels; expected grey or RGB")
def floating_point_pixels(folder):
    (folder / IMAGE).unlink()
    save(folder / "benign" / "benign (1).tif", RANDOM.astype(np.float32))


@broken("benign/benign (1).tif", "expected 8 or 16 bits")
def thirty_two_bits(folder):
    (folder / IMAGE).unlink()
    save(folder / "benign" / "benign (1).tif", RANDOM.astype(np.int32) * 1000)


@broken("benign/benign (3).png", "a folder; expected an image file")
def a_folder_for_a_file(folder):
    (folder / "benign" / "benign (3).png").mkdir()


@broken("benign/benign (3).png", "a link that leads nowhere")
def a_dead_link(folder):
    (folder / "benign" / "benign (3).png").symlink_to(folder / "gone.png")


@broken("benign/benign (3).png", "not a file; expected an image file")
def a_pipe(folder):
    os.mkfifo(folder / "benign" / "benign (3).png")


@broken(IMAGE, "Permission denied")
def an_unreadable_image(folder):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (folder / IMAGE).chmod(0)


# Masks that are none
replace("an empty lesion", MASK, "empty, but a benign image shows a lesion", np.zeros(SHAPE, bool))
replace("an empty further mask", "benign/benign (1)_mask_1.png", "empty, but a benign image", np.zeros(SHAPE, bool))
replace("a normal image with a lesion", "normal/normal (1)_mask.png", "72 mask pixels; a normal image", INSIDE)
replace("an inverted mask", MASK, "all four corners and 91% of the pixels are lesion", ~INSIDE)
replace("a white mask", MASK, "all four corners and 100% of the pixels are lesion", np.ones(SHAPE, bool))
replace("a mask on its side", MASK, "24 x 32 pixels, its image has 32 x 24: rotate one of them", INSIDE.T)
replace("an image for a mask", MASK, "of the pixels are grey; expected a mask", RANDOM)
replace("a dark image for a mask", MASK, "levels up to 31; expected a mask", RANDOM // 8)
replace("three classes in a mask", MASK, "3 levels up to 2; expected a mask", INSIDE + (RANDOM > 250) * np.uint8(1))
replace(
    "a transparent mask",
    MASK,
    "transparent pixels; expected opaque ones",
    np.dstack([colour(255, 255, 255), INSIDE * np.uint8(255)]),
)
replace(
    "a mask whose lesion is lost in resizing",
    MASK,
    "empty, but a benign image",
    np.pad([[255]], ((5, 90), (5, 122))).astype(np.uint8),
)


@broken(IMAGE.replace(".png", "_mask.png"), "of the pixels are grey; expected a mask")
def image_and_mask_swapped(folder):
    image, mask = folder / IMAGE, folder / MASK
    image.rename(folder / "other")
    mask.rename(image)
    (folder / "other").rename(mask)


# Files that do not belong together
@broken(IMAGE, "no mask for 'benign (1)'")
def an_image_without_a_mask(folder):
    (folder / MASK).unlink()


@broken(MASK, "mask without its image 'benign (1)'")
def a_mask_without_an_image(folder):
    (folder / IMAGE).unlink()


@broken("benign/benign (10)_mask.png", "mask without its image 'benign (10)'")
def one_for_ten(folder):
    (folder / MASK).rename(folder / "benign" / "benign (10)_mask.png")


@broken("benign/benign (1)_mask_1.png", "a further mask, but benign (1)_mask is not there")
def a_further_mask_alone(folder):
    (folder / MASK).rename(folder / "benign" / "benign (1)_mask_1.png")


@broken("benign/benign (1).bmp", "named like")
def an_image_in_two_formats(folder):
    save(folder / "benign" / "benign (1).bmp", RANDOM)


@broken("benign/benign (1)_mask.bmp", "named like")
def a_mask_in_two_formats(folder):
    save(folder / "benign" / "benign (1)_mask.bmp", INSIDE)


@broken("benign/Jos\u00e9.png", "has the same name")
def a_name_in_two_forms_of_unicode(folder):
    rows = ["image,mask"]
    for name in ("Jos\u00e9", "Jose\u0301"):
        shutil.copy(folder / IMAGE, folder / "benign" / f"{name}.png")
        shutil.copy(folder / MASK, folder / "benign" / f"{name}_mask.png")
        rows.append(f"benign/{name}.png,benign/{name}_mask.png")
    (folder / "pairs.csv").write_text("\n".join(rows), encoding="utf-8")


@broken("malignant/benign (1).png", "has the same name")
def a_name_in_two_classes(folder):
    for end in ("", "_mask"):
        shutil.copy(folder / "benign" / f"benign (1){end}.png", folder / "malignant")


@broken("benign/benign (1).png", "has the same name")
def a_name_in_two_cases(folder):
    for end in ("", "_mask"):
        shutil.copy(folder / "benign" / f"benign (1){end}.png", folder / "benign" / f"Benign (1){end}.png")


@broken("normal", "no images")
def an_empty_class(folder):
    for file in (folder / "normal").iterdir():
        file.unlink()


@broken("", "several layouts fit: busi (5 images), folders (1 images)")
def two_data_sets_in_one(folder):
    for name, pixels in (("images", RANDOM), ("masks", INSIDE)):
        (folder / name).mkdir()
        save(folder / name / "1.png", pixels)


@broken("", "no layout pairs images with masks; found 5 image files")
def no_masks_at_all(folder):
    for file in folder.rglob("*_mask.png"):
        file.unlink()


@broken("", "no layout pairs images with masks; found 10 image files")
def the_folder_above(folder):
    inner = folder / "Dataset_BUSI_with_GT"
    inner.mkdir()
    for name in ("benign", "malignant", "normal"):
        (folder / name).rename(inner / name)


@broken("", "no layout pairs images with masks; found no image file")
def an_empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@broken("", "no such folder")
def no_folder(folder):
    shutil.rmtree(folder)


@broken("", "a file, not a folder: unpack it and give the folder")
def a_zip_for_a_folder(folder):
    shutil.rmtree(folder)
    with zipfile.ZipFile(folder, "w") as archive:
        archive.writestr("benign/benign (1).png", b"")


# Tables of pairs
def table(name, text, told, file="pairs.csv"):
    def change(folder):
        (folder / "pairs.csv").write_bytes(text.encode() if isinstance(text, str) else text)

    CORPUS[name] = (change, file, told)


table("a table without masks", f"image,class\n{IMAGE},benign\n", "columns image, class; expected image, mask")
table("a table of nothing", "", "columns none; expected image, mask")
table("a table of no rows", "image,mask\n", "no images", file="")
table("a table in another encoding", b"image,mask\n\xff\xfe,\x80\n", "not a readable table")
table("a table with a wrong path", f"image,mask\n{IMAGE},benign/9.png\n", "line 2: ")
table("a table with a folder as image", f"image,mask\nbenign,{MASK}\n", "is no file; expected an image")
table("a lesion without a mask", f"image,mask,class\n{IMAGE},,benign\n", "line 2: no mask")
table(
    "an image of two classes",
    f"image,mask,class\n{IMAGE},{MASK},benign\n{IMAGE},{MASK},malignant\n",
    "'malignant' here and 'benign' above",
)
table(
    "an unknown column", f"image,mask,clas\n{IMAGE},{MASK},benign\n", "columns image, mask, clas; expected image, mask"
)
table("a doubled column", f"image,mask,Mask\n{IMAGE},{MASK},{MASK}\n", "columns image, mask, mask; expected")
table("two columns of patients", f"image,mask,patient,group\n{IMAGE},{MASK},1,2\n", "and group or patient, each once")
table("a row cut short", f"class,image,mask\nbenign,{IMAGE}\n", "line 2: no mask")
table("a row without an image", f"mask,image\n{MASK}\n", "line 2: image '' is no file")
table("a row too long", f"image,mask\n{IMAGE},{MASK},benign\n", "line 2: 3 cells, but 2 columns")
table("an open quote", f'image,mask\n{IMAGE},"{MASK}\n', "not a readable table")
table(
    "a row twice, spelt in two ways",
    f"image,mask\n{IMAGE},{MASK}\n\n./{IMAGE},normal/../{MASK}\n",
    "line 4: ",
)
table(
    "a normal image twice",
    "image,mask,class\nnormal/normal (1).png,,normal\n./normal/normal (1).png,,normal\n",
    "line 3: ",
)
table(
    "one mask for two images",
    f"image,mask\n{IMAGE},{MASK}\nbenign/benign (2).png,{MASK}\n",
    "line 3: ",
)
for kind, name in {"a path": "../1", "a Windows path": "a\\1", "a drive": "c:1", "nothing": " "}.items():
    table(f"{kind} for a name", f"image,mask,name\n{IMAGE},{MASK},{name}\n", f"line 2: name {name.strip()!r}; expected")


@pytest.mark.parametrize("name", CORPUS)
def test_broken_data_end_in_one_message_and_code_2(data, monkeypatch, capsys, name):
    change, file, told = CORPUS[name]
    change(data)
    before = sorted(data.parent.rglob("*"))
    code, (out, err) = verify(monkeypatch, capsys, data)
    assert (code, out) == (2, "")
    named = [line for line in err.splitlines() if str(data / file) in line and told in line]
    assert len(named) >= 1, err
    # One message: a head, and a line for each file at fault. No traceback and no line of source.
    assert err.startswith(f"busi: {data}") or err.startswith("busi: warning: Image size")
    assert "Traceback" not in err
    assert ".py" not in err
    assert sorted(data.parent.rglob("*")) == before


def test_the_data_that_are_broken_here_are_whole_before(data, monkeypatch, capsys):
    code, (out, _) = verify(monkeypatch, capsys, data)
    assert code == 0
    assert out.splitlines()[0].startswith("layout: busi ")
    assert [line.split() for line in out.splitlines()[4:7]] == [["benign", "2"], ["malignant", "2"], ["normal", "1"]]


def test_all_faults_of_a_data_set_are_told_at_once(data, monkeypatch, capsys):
    for name in ("an empty image", "a_dead_link", "a normal image with a lesion", "an_image_without_a_mask"):
        CORPUS[name][0](data)
    code, (_, err) = verify(monkeypatch, capsys, data)
    assert code == 2
    assert err.startswith(f"busi: {data}: 4 problem(s), fix these files:")
