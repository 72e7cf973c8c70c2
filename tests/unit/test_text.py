"""What comes from outside is bounded, and hides nothing."""

import pytest

from dtr_audit.core.text import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zoë", "Zoë"),
        ("a line\n", "a line\N{REPLACEMENT CHARACTER}"),
        ("\x1b[31mred", "\N{REPLACEMENT CHARACTER}[31mred"),
        ("gnp\u202eexe", "gnp\N{REPLACEMENT CHARACTER}exe"),
        ("0123456789", "0123456789"),
        ("0123456789a", "012345678…"),
    ],
)
def test_a_text_is_cut_and_shows_what_it_hides(text: str, shown: str) -> None:
    assert clean(text, 10) == shown


@pytest.mark.parametrize("value", [None, 1, True, ["text"], b"text"])
def test_what_is_no_text_is_empty(value: object) -> None:
    assert clean(value, 10) == ""
