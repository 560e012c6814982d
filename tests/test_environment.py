"""pyproject.toml, requirements.lock and environment.yml install the same study."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
LOCKED_EXTRAS = PROJECT["optional-dependencies"]["cpu"] + PROJECT["optional-dependencies"]["dev"]

# One entry a pin: `name==version ; marker`, then its hashes on lines that continue it.
ENTRIES = [entry.replace("\\\n", " ").split() for entry in re.findall(r"^\w.*(?:\n .*)*", LOCK, re.MULTILINE)]
PINS = [Requirement(" ".join(word for word in entry if not word.startswith("--hash="))) for entry in ENTRIES]


def list_imports(file):
    """Return the top-level names of the modules that a file imports."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    return {name.partition(".")[0] for name in names}


def test_every_package_that_is_imported_is_asked_for():
    """Not only brought along by another one, which may stop doing so."""
    files = [*REPOSITORY.glob("busi/**/*.py"), *REPOSITORY.glob("tests/**/*.py")]
    own = {"busi", "benchmarks", *(file.stem for file in REPOSITORY.glob("tests/*.py"))}
    imported = set().union(*map(list_imports, files)) - own - sys.stdlib_module_names
    asked = {canonicalize_name(Requirement(wanted).name) for wanted in PROJECT["dependencies"] + LOCKED_EXTRAS}
    packages = packages_distributions()
    assert {name for name in imported if asked.isdisjoint(map(canonicalize_name, packages[name]))} == set()


@pytest.mark.parametrize("wanted", PROJECT["dependencies"] + LOCKED_EXTRAS)
def test_every_dependency_is_pinned_where_its_specifier_allows(wanted):
    wanted = Requirement(wanted)
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert pins, f"{wanted.name} is in pyproject.toml, not in requirements.lock: make lock"
    for pin in pins:
        (exact,) = pin.specifier
        assert wanted.specifier.contains(exact.version), f"{pin} is locked, {wanted} asked: make lock"


def test_every_pin_is_one_exact_version_with_a_hash():
    for entry, pin in zip(ENTRIES, PINS, strict=True):
        assert [exact.operator for exact in pin.specifier] == ["=="], pin
        assert any(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in entry), f"{pin} has no hash"


def test_every_python_gets_the_same_versions():
    names = [pin.name for pin in PINS]
    assert sorted(set(names)) == sorted(names), "pinned twice: lock with --fork-strategy fewest"


def test_the_lock_names_no_address():
    assert not re.search(r"://|^\s*-(i|f|-index-url|-extra-index-url|-find-links)\b", LOCK, re.MULTILINE)


def test_conda_installs_the_lock_on_a_supported_python():
    python = next(line for line in CONDA if isinstance(line, str) and line.startswith("python="))
    assert Version(python.removeprefix("python=") + ".0") in SpecifierSet(PROJECT["requires-python"])
    # Nothing else may come from conda, where it would have a version of its own.
    assert [python, "pip", {"pip": ["--requirement requirements.lock"]}] == CONDA
