"""New folders that are either complete or not there: a process that is killed leaves none that looks finished."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from busi.config import StudyError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Make a folder that becomes ``out`` at the end of a ``with`` statement, and is removed if its body fails.

    Raises:
        StudyError: ``out`` exists or cannot be made.
    """
    if out.exists() or out.is_symlink():
        raise StudyError(f"{out}: exists; nothing is overwritten: remove it or name another folder")
    # On the disk of ``out``, because a folder can only be renamed in one step within one disk.
    place = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        scratch = TemporaryDirectory(prefix=f".{out.name}-", dir=place)
    except OSError as error:
        raise StudyError(
            f"{out}: cannot be made ({error.strerror}); give a folder in a place that can be written to"
        ) from error
    with scratch:
        # A folder inside the temporary one, because that one is closed to other users.
        folder = Path(scratch.name) / out.name
        folder.mkdir()
        yield folder
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(out)
