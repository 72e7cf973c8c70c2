"""The words of the glossary: names that only their authors understood do not come back, and prose stays plain."""

import io
import keyword
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("layers", "functions", "cli", "simulator", "tools", "tests")

# Words of names that say nothing to a reader who has not seen the project.
PRIVATE = frozenset(
    {
        *("night", "nights", "told", "hear", "heard", "spoken", "news", "unannounced", "reckon", "reckoned", "bill"),
        *("surroundings", "tally", "examined", "examiner", "settle", "settled", "proof", "proven", "unproven"),
        *("gathering", "standing", "pace", "party", "ghosts", "twin", "twins", "flaw", "lapse", "counterfeit"),
        *("workstation", "strike", "strikes", "misfortune", "scissors", "fanned", "sick"),
    }
)
# Keys that others hold, and the steps of the state machine, keep their spelling.
HELD_BY_OTHERS = frozenset({"proof_sha256"})

PHRASES = (
    *("whoever", "whatever", "nobody", "besides", "anew", "of which", "be it", "lest", "the night", "first night"),
    *("is told", "are told", "tells of", "heard of", "spoken of", "reckoned"),
)
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
    if page.name != "THIRD_PARTY_LICENSES.md"
]


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def names_in(file: Path) -> dict[str, int]:
    """Give the names in a file of Python, each with its first line."""
    found: dict[str, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            found.setdefault(token.string, token.start[0])
    return found


@pytest.mark.parametrize("folder", CODE)
def test_names_in_code_hold_no_private_word(folder: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name, line in names_in(file).items()
        if words_of(name) & PRIVATE and name not in HELD_BY_OTHERS and not name.startswith("test_")
    ]
    assert not wrong


@pytest.mark.parametrize("folder", CODE)
def test_names_of_files_hold_no_private_word(folder: str) -> None:
    assert not [
        file for file in (ROOT / folder).rglob("*.py") if words_of(file.stem.replace("third_party", "")) & PRIVATE
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_holds_no_phrase_that_the_glossary_replaces(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL).lower()
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where a link leads
    found = [phrase for phrase in PHRASES if re.search(rf"\b{phrase}\b", " ".join(text.split()))]
    assert not found


def test_words_of_a_name_in_every_spelling_are_found() -> None:
    assert words_of("_told_end") == {"told", "end"}
    assert words_of("LeaseHeldError") == {"lease", "held", "error"}
    assert words_of("FINDINGS_TOLD") == {"findings", "told"}
