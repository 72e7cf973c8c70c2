"""DynamoDB's expressions, as far as an application writes them: conditions, filters, keys and updates.

Values are in DynamoDB's own JSON form, `{"S": "text"}`. What is not known here is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

Value = dict[str, Any]
Item = dict[str, Value]
Condition = Callable[["Terms", Item], bool]

_TOKEN = re.compile(r"\s*(<=|>=|<>|[=<>(),.+\-]|[:#][A-Za-z0-9_]+|[A-Za-z_][A-Za-z0-9_]*)")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    "<>": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}
_CLAUSES = ("SET", "REMOVE", "ADD", "DELETE")


class UnknownExpressionError(ValueError):
    """An expression that these rules do not cover, or that DynamoDB would refuse."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an expression's `#names` and `:values` stand for."""

    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)


def is_met(expression: str, terms: Terms, item: Item) -> bool:
    """Tell whether an item meets a condition."""
    return _parse_condition(expression)(terms, item)


def update(expression: str, terms: Terms, item: Item) -> Item:
    """Give the item as an update leaves it; every value is read before any is written."""
    changed = dict(item)
    for clause, path, operand in _parse_update(expression):
        name = path(terms)
        if clause == "REMOVE":
            changed.pop(name, None)
            continue
        value = operand(terms, item)
        if value is None:
            raise UnknownExpressionError(f"{expression}: an attribute that is read is not there")
        changed[name] = _plus(changed.get(name, {"N": "0"}), value) if clause == "ADD" else value
    return changed


def _tokens(expression: str) -> list[str]:
    tokens = []
    position = 0
    text = expression.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnknownExpressionError(f"{expression}: not understood from character {position} on")
        tokens.append(match.group(1))
        position = match.end()
    return tokens


Operand = Callable[[Terms, Item], Value | None]


class _Parser:
    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._left = _tokens(expression)

    @property
    def next(self) -> str:
        """The token ahead, '' at the end."""
        return self._left[0] if self._left else ""

    def take(self, *wanted: str) -> str:
        """Take the token ahead, which must be one of `wanted` if any are given."""
        token = self.next
        if not token or (wanted and token.upper() not in wanted):
            raise UnknownExpressionError(
                f"{self._expression}: {' or '.join(wanted) or 'more'} is expected at {token!r}"
            )
        return self._left.pop(0)

    def accept(self, word: str) -> bool:
        """Take the token ahead if it is this one."""
        if self.next.upper() != word:
            return False
        self._left.pop(0)
        return True

    def condition(self) -> Condition:
        parts = [self._all()]
        while self.accept("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda terms, item: any(part(terms, item) for part in parts)

    def _all(self) -> Condition:
        parts = [self._one()]
        while self.accept("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda terms, item: all(part(terms, item) for part in parts)

    def _one(self) -> Condition:
        if self.accept("NOT"):
            negated = self._one()
            return lambda terms, item: not negated(terms, item)
        if self.accept("("):
            inner = self.condition()
            self.take(")")
            return inner
        if self.next in {"attribute_exists", "attribute_not_exists"}:
            wanted = self.take() == "attribute_exists"
            self.take("(")
            path = self.path()
            self.take(")")
            return lambda terms, item: (path(terms) in item) is wanted
        if self.next in _OF_TWO:
            function = _OF_TWO[self.take()]
            self.take("(")
            left = self.operand()
            self.take(",")
            right = self.operand()
            self.take(")")
            return function(left, right)
        return self._comparison()

    def _comparison(self) -> Condition:
        left = self.operand()
        if self.accept("BETWEEN"):
            low = self.operand()
            self.take("AND")
            high = self.operand()
            not_less, not_more = _compare(left, ">=", low), _compare(left, "<=", high)
            return lambda terms, item: not_less(terms, item) and not_more(terms, item)
        if self.accept("IN"):
            self.take("(")
            choices = [_compare(left, "=", self.operand())]
            while self.accept(","):
                choices.append(_compare(left, "=", self.operand()))
            self.take(")")
            return lambda terms, item: any(choice(terms, item) for choice in choices)
        return _compare(left, self.take(*_COMPARISONS), self.operand())

    def path(self) -> Callable[[Terms], str]:
        token = self.take()
        if self.next == ".":
            raise UnknownExpressionError(f"{self._expression}: paths into documents are not known here")
        if token.startswith("#"):
            return lambda terms: terms.names[token]
        return lambda terms: token

    def operand(self) -> Operand:
        if self.next.startswith(":"):
            token = self.take()
            return lambda terms, item: terms.values[token]
        path = self.path()
        return lambda terms, item: item.get(path(terms))

    def assigned(self) -> Operand:
        """Parse what SET assigns."""
        if self.next == "if_not_exists":
            self.take()
            self.take("(")
            path = self.path()
            self.take(",")
            otherwise = self.operand()
            self.take(")")
            left: Operand = lambda terms, item: item.get(path(terms)) or otherwise(terms, item)  # noqa: E731
        else:
            left = self.operand()
        if not self.accept("+"):
            return left
        right = self.operand()

        def add(terms: Terms, item: Item) -> Value | None:
            one, other = left(terms, item), right(terms, item)
            return None if one is None or other is None else _plus(one, other)

        return add

    def clauses(self) -> list[tuple[str, Callable[[Terms], str], Operand]]:
        parsed: list[tuple[str, Callable[[Terms], str], Operand]] = []
        while self.next:
            clause = self.take(*_CLAUSES).upper()
            if clause == "DELETE":
                raise UnknownExpressionError(f"{self._expression}: DELETE is not known here")
            while True:
                path = self.path()
                if clause == "SET":
                    self.take("=")
                parsed.append(
                    (clause, path, self.assigned() if clause == "SET" else self.operand() if clause == "ADD" else _none)
                )
                if not self.accept(","):
                    break
        return parsed

    def end(self) -> None:
        if self._left:
            raise UnknownExpressionError(f"{self._expression}: not understood from {self.next!r} on")


@lru_cache
def _parse_condition(expression: str) -> Condition:
    parser = _Parser(expression)
    condition = parser.condition()
    parser.end()
    return condition


@lru_cache
def _parse_update(expression: str) -> list[tuple[str, Callable[[Terms], str], Operand]]:
    parser = _Parser(expression)
    clauses = parser.clauses()
    parser.end()
    return clauses


def _none(_terms: Terms, _item: Item) -> None:
    return None


def _plain(value: Value) -> tuple[str, Any]:
    [(kind, content)] = value.items()
    return kind, Decimal(content) if kind == "N" else content


def _compare(left: Operand, operator: str, right: Operand) -> Condition:
    def compare(terms: Terms, item: Item) -> bool:
        one, other = left(terms, item), right(terms, item)
        if one is None or other is None:
            return operator == "<>" and one is not other
        (kind, mine), (other_kind, theirs) = _plain(one), _plain(other)
        if kind != other_kind:
            return operator == "<>"
        return _COMPARISONS[operator](mine, theirs)

    return compare


def _begins(left: Operand, right: Operand) -> Condition:
    def begins(terms: Terms, item: Item) -> bool:
        one, other = left(terms, item), right(terms, item)
        return one is not None and other is not None and str(one.get("S")).startswith(str(other["S"]))

    return begins


def _contains(left: Operand, right: Operand) -> Condition:
    def contains(terms: Terms, item: Item) -> bool:
        one, other = left(terms, item), right(terms, item)
        if one is None or other is None:
            return False
        (kind, mine), (_, theirs) = _plain(one), _plain(other)
        if kind == "L":
            return other in mine
        return theirs in mine

    return contains


def _is_of_type(left: Operand, kind: Operand) -> Condition:
    def is_of_type(terms: Terms, item: Item) -> bool:
        one, wanted = left(terms, item), kind(terms, item)
        return one is not None and wanted is not None and wanted.get("S") in one

    return is_of_type


_OF_TWO = {"attribute_type": _is_of_type, "begins_with": _begins, "contains": _contains}


def _plus(one: Value, other: Value) -> Value:
    if one.keys() != {"N"} or other.keys() != {"N"}:
        raise UnknownExpressionError("only numbers can be added here")
    return {"N": str(Decimal(one["N"]) + Decimal(other["N"]))}
