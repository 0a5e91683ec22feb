"""JSON that is read as the object of a dataclass."""

import dataclasses

import pytest

from keras_popup.records.schemas import parse


@dataclasses.dataclass
class Inner:
    name: str


@dataclasses.dataclass
class Outer:
    number: int
    share: float
    inner: tuple[Inner, ...]
    values: dict[str, float]
    rows: list[dict[str, float]]
    text: str | None = None
    yes: bool = False
    any: object = None

    def __post_init__(self):
        if self.number < 0:
            raise ValueError("number is negative")


GOOD = {"number": 1, "share": 0.5, "inner": [{"name": "a"}], "values": {"x": 1}, "rows": [{"y": 2.5}]}


def test_parse_gives_objects_of_the_class():
    assert parse(Outer, GOOD) == Outer(1, 0.5, (Inner("a"),), {"x": 1}, [{"y": 2.5}])
    assert parse(Outer, {**GOOD, "text": "a", "yes": True, "of a later version": []}).text == "a"
    assert parse(Outer, {**GOOD, "share": 1, "text": None}).share == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "two"}, "'number' is 'two', where an integer is expected"),
        ({"number": True}, "'number' is True, where an integer is expected"),
        ({"number": 1.0}, "'number' is 1.0, where an integer is expected"),
        ({"number": None}, "'number' is null, where an integer is expected"),
        ({"number": -1}, "number is negative"),
        ({"share": "x" * 999}, "'share' is 'x{39}, where a number is expected"),
        ({"share": "\x1b[2J"}, r"'share' is '\\\\x1b\[2J', where a number"),
        ({"inner": None}, "'inner' is null, where a list is expected"),
        ({"inner": [{"name": "a"}, 3]}, r"'inner\[1\]' is 3, where an object is expected"),
        ({"inner": [{}]}, r"inner\[0\] lacks 'name'"),
        ({"values": []}, "'values' is a list, where an object is expected"),
        ({"values": {"x": {}}}, "'values.x' is an object, where a number is expected"),
        ({"rows": [[]]}, r"'rows\[0\]' is a list, where an object"),
        ({"text": 3}, "'text' is 3, where text is expected"),
        ({"yes": 1}, "'yes' is 1, where true or false is expected"),
    ],
)
def test_parse_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse(Outer, {**GOOD, **change})


def test_parse_names_what_is_missing():
    with pytest.raises(ValueError, match="^it lacks 'share'"):
        parse(Outer, {"number": 1})
    with pytest.raises(ValueError, match="^it is a list, where an object is expected"):
        parse(Outer, [1])
