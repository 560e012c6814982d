"""A full disk, a read-only store, a training out of memory: the run is named, the others go on, all is made good."""

import os
import re
import resource
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest
from working_copy import epochs

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system of its own")


@contextmanager
def mounted(folder, size):
    """A file system in memory of ``size`` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def made_good(copy, undisturbed):
    """Whether the study, started once more, ends well and has trained no epoch twice."""
    assert copy.study() == 0, copy.said()
    assert epochs(copy.said()) == undisturbed.epochs
    assert copy.tables() == undisturbed.tables


@root
def test_a_full_disk(undisturbed, copy):
    with mounted(copy.runs, 64 * 2**20):
        ballast = copy.runs / "ballast"
        # A checkpoint takes 0.3 MB here, and room for a further megabyte is asked for: enough for one run, not for two.
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(copy.runs).free - 1_800_000)
        assert copy.study(JOBS=1) != 0
        trained = {run for run, epoch in epochs(copy.said()) if epoch == 4}
        assert len(trained) == 1
        for run in {run for run, _ in undisturbed.epochs} - trained:
            assert re.search(rf"^busi: \S*{run}/fold0-seed0: .* disk full", copy.said(), re.MULTILINE)
        ballast.unlink()
        made_good(copy, undisturbed)


@root
def test_a_store_that_cannot_be_written_to(undisturbed, copy):
    with mounted(copy.runs, 64 * 2**20):
        (finished,) = (undisturbed.runs / "tiny/published/loss-kld").glob("fold0-seed0-????????")
        shutil.copytree(finished, copy.runs / "tiny/published/loss-kld" / finished.name)
        subprocess.run(["mount", "-o", "remount,ro", copy.runs], check=True)
        assert copy.study() != 0
        named = re.findall(
            r"^busi: (?:\S+/)?([^/\s]+)/fold0-seed0: \[Errno 30\] Read-only file system", copy.said(), re.MULTILINE
        )
        assert sorted(named) == ["baseline", "loss-dice"]
        assert (copy.folder / "reports/tiny/results/published/loss-kld/fold0-seed0/history.csv").is_file()
        subprocess.run(["mount", "-o", "remount,rw", copy.runs], check=True)
        assert copy.study() == 0, copy.said()
        assert {run for run, _ in epochs(copy.said())} == {"baseline", "loss-dice"}
        assert copy.tables() == undisturbed.tables


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux, to take memory from a process at work")
def test_a_training_out_of_memory(undisturbed, copy):
    study = copy.start(JOBS=1)
    while not (victims := copy.processes("train", "loss-kld/fold0-seed0")):
        assert study.poll() is None, copy.said()
        time.sleep(0.05)
    # Python itself is loaded, the backend is not: it will not get what it needs.
    for victim in victims:
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (2**28, 2**28))
    assert study.wait() != 0
    assert re.search(r"^busi: not trained: \S*loss-kld/fold0-seed0\. ", copy.said(), re.MULTILINE)
    assert {run for run, _ in epochs(copy.said())} == {"baseline", "loss-dice"}
    made_good(copy, undisturbed)
