"""README, data card and documents: what they name in this repository exists."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_that_a_document_links_to_exist(document):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_tests_that_a_document_names_exist(document):
    """A protocol says which test holds each of its rules: under another name nobody finds it."""
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", document.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []
