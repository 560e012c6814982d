"""The smoke study through Slurm: a controller and two nodes on this machine, one of which is lost in the middle.

Its name does not begin with test_: it installs Slurm from Debian's packages and needs root, so it runs only on request,
with ``make test-slurm``.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from working_copy import WorkingCopy

PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")

# Nodes of one processor each, whatever this machine has; no database of past jobs; nothing outside one folder.
CONFIG = """
ClusterName=busi
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
MinJobAge=86400
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=64000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=64000
PartitionName=all Nodes=ALL Default=YES State=UP
"""

# Settings that a site adds to the repository's profile for its own cluster: here, no accounts and no database.
SITE = {"slurm-status-command": "squeue", "slurm-no-account": True}


class Cluster:
    """Slurm's daemons on this machine, with all their files in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons = {}
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "SNAKEMAKE_PROFILE": str(folder / "site")}
        for name in ("state", "node1", "node2", "site"):
            (folder / name).mkdir()
        (folder / "site" / "config.yaml").write_text(yaml.safe_dump(SITE))
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=socket.gethostname(), ports=_ports(3)))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)

    def __enter__(self):
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        _wait(lambda: (self.folder / "munge.socket").exists(), "munged", 30)
        self._start("slurmctld", "slurmctld", "-D")
        for node in ("node1", "node2"):
            # All processes of a namespace die with its first one: a node is lost with everything on it, as in a power
            # cut. srun inside a job looks for its configuration only where Slurm is installed.
            own = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec")
            self._start(node, *own, f"mount --bind {self.folder} /etc/slurm; exec slurmd -D -N {node}")
        _wait(lambda: self.ask("sinfo", "-h", "-o", "%D %t") == "2 idle", "both nodes", 120)
        return self

    def __exit__(self, *_):
        for daemon in reversed(self.daemons.values()):
            daemon.kill()
            daemon.wait()

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints; "" if it fails."""
        answer = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)
        return answer.stdout.strip()

    def lose(self, node: str) -> None:
        """Kill a node's daemon and every job on it."""
        self.daemons[node].kill()
        self.daemons[node].wait()

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("w") as output:
            self.daemons[name] = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=output, stderr=subprocess.STDOUT
            )


@pytest.fixture
def cluster(tmp_path):
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(
            "needs root on Debian or a relative, to install Slurm and to give its nodes namespaces of their own"
        )
    if not all(map(shutil.which, ("munged", "sbatch", "slurmctld", "slurmd"))):
        subprocess.run(["apt-get", "update"], check=True)
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES], check=True)
    folder = tmp_path / "cluster"
    folder.mkdir()
    with Cluster(folder) as cluster:
        yield cluster


def test_a_study_that_loses_a_node_ends_with_the_tables_of_a_local_one(cluster, tmp_path):
    local = WorkingCopy(tmp_path / "local")
    assert local.study(JOBS=2) == 0, local.said()

    copy = WorkingCopy(tmp_path / "copy")
    study = copy.start(WORKFLOW_PROFILE="slurm", environment=cluster.environment)

    def find_lost():
        assert study.poll() is None, copy.said()
        return _find_trainings(copy, "node1")

    lost = _wait(find_lost, "training", 900)
    job = lost[0].environ()["SLURM_JOB_ID"]
    cluster.lose("node1")
    assert not psutil.wait_procs(lost, timeout=10)[1]

    assert study.wait() == 0, copy.said()
    # Epochs are written to the nodes' logs; the progress of all runs is told here.
    assert re.search(r" smoke: \d+ of \d+ runs trained; .*: after epoch \d+ of \d+; ", copy.said())
    assert copy.tables() == local.tables()
    shown = dict(re.findall(r"(\w+)=(\S*)", cluster.ask("scontrol", "show", "job", job)))
    assert (shown["JobState"], shown["Restarts"], shown["NodeList"]) == ("COMPLETED", "1", "node2")
    assert cluster.ask("sinfo", "-h", "-N", "-o", "%N %t").split()[1].startswith("down")


def _find_trainings(copy: WorkingCopy, node: str) -> list[psutil.Process]:
    """Return the processes that train on a node and have finished an epoch, so that there is something to resume."""
    unfinished = [str(folder) for folder in copy.runs.glob("smoke/*/*/*/*.unfinished/epoch-*")]
    training = []
    for process in copy.processes("train"):
        try:
            runs = [f"{argument}-" for argument in process.cmdline() if "/fold" in argument]
            begun = any(run in folder for run in runs for folder in unfinished)
            if begun and process.environ().get("SLURMD_NODENAME") == node:
                training.append(process)
        except psutil.NoSuchProcess:
            continue
    return training


def _wait(until, what: str, seconds: float):
    """Call ``until`` until its value is true, and return that value."""
    end = time.monotonic() + seconds
    while not (value := until()):
        assert time.monotonic() < end, f"{what}: not there after {seconds} s"
        time.sleep(0.05)
    return value


def _ports(count: int) -> list[int]:
    """Find ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
