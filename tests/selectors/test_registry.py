"""Selectors by name and config."""

import pytest
from tables import SELECTORS

from keras_popup import selectors


@pytest.mark.parametrize("name", SELECTORS)
def test_deserialize_gives_what_was_serialized(name):
    selector = selectors.get(name)
    again = selectors.deserialize(selectors.serialize(selector))
    assert type(again) is type(selector)
    assert again.get_config() == selector.get_config()
    assert selectors.get(selector) is selector
    assert type(selectors.get(selectors.serialize(selector))) is type(selector)


@pytest.mark.parametrize("identifier", ["topk", None, 3, {}])
def test_get_refuses_what_is_unknown(identifier):
    with pytest.raises(ValueError, match="top_k|class_name"):
        selectors.get(identifier)
