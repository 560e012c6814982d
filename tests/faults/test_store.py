"""A full disk, a read-only store, a training out of memory: the run is named, the others go on, a rerun ends well."""

import os
import re
import resource
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest
from working_copy import RUNS, epochs

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system of its own")


@contextmanager
def mount(folder, size):
    """Mount a file system in memory of ``size`` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def check_rerun(copy, undisturbed, every_epoch):
    """Check that the study, started once more, ends well and has trained no epoch twice."""
    assert copy.study() == 0, copy.said()
    assert epochs(copy.said()) == every_epoch
    assert copy.tables() == undisturbed.tables


def find_named(copy, error):
    """Return the runs, as in `RUNS`, that the study has named together with an error."""
    lines = re.findall(rf"^busi: (\w+)/\S+/(\S+)/fold0-seed0: .*{error}", copy.said(), re.MULTILINE)
    return {f"{protocol}/{name}" for protocol, name in lines}


@root
def test_a_full_disk(undisturbed, every_epoch, copy):
    with mount(copy.runs, 64 * 2**20):
        ballast = copy.runs / "ballast"
        # A checkpoint of a published run takes 0.3 MB here and asks for a further megabyte: there is room for one run,
        # not for two. The held-out run, which keeps its best weights as well, has no room at all.
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(copy.runs).free - 1_800_000)
        assert copy.study(JOBS=1) != 0
        trained = {run for run, epoch in epochs(copy.said()) if epoch == RUNS[run]}
        assert len(trained) == 1
        assert find_named(copy, "disk full") == RUNS.keys() - trained
        ballast.unlink()
        check_rerun(copy, undisturbed, every_epoch)


@root
def test_a_store_that_cannot_be_written_to(undisturbed, copy):
    # Not in the copy's own store, which other tests damage.
    (folder,) = undisturbed.runs.glob("*/published/*/loss-kld/fold0-seed0-????????")
    finished = folder.relative_to(undisturbed.runs)
    others = RUNS.keys() - {"published/loss-kld"}
    with mount(copy.runs, 64 * 2**20):
        shutil.copytree(undisturbed.runs / finished, copy.runs / finished)
        subprocess.run(["mount", "-o", "remount,ro", copy.runs], check=True)
        assert copy.study() != 0
        assert find_named(copy, r"\[Errno 30\] Read-only file system") == others
        # The finished run needs no writing, so its job is done.
        assert str(copy.runs / finished) in "".join(
            mark.read_text() for mark in (copy.folder / "build/tiny/finished").rglob("fold0-seed0-*") if mark.is_file()
        )
        subprocess.run(["mount", "-o", "remount,rw", copy.runs], check=True)
        assert copy.study() == 0, copy.said()
        assert {run for run, _ in epochs(copy.said())} == others
        assert copy.tables() == undisturbed.tables


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux, to take memory from a running process")
def test_a_training_out_of_memory(undisturbed, every_epoch, copy):
    study = copy.start(JOBS=1)
    while not (victims := copy.processes("train", "loss-kld/fold0-seed0")):
        assert study.poll() is None, copy.said()
        time.sleep(0.05)
    # Python itself is loaded, the backend is not: it will not get the memory that it needs.
    for victim in victims:
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (2**28, 2**28))
    assert study.wait() != 0
    assert re.search(r"^busi: not trained: \S*loss-kld/fold0-seed0\. ", copy.said(), re.MULTILINE)
    assert {run for run, _ in epochs(copy.said())} == RUNS.keys() - {"published/loss-kld"}
    check_rerun(copy, undisturbed, every_epoch)
