"""A dataset of every kind of source, made once in a test process."""

import pytest
from small_datasets import make_datasets


@pytest.fixture(scope="session")
def every_source(tmp_path_factory):
    return make_datasets(tmp_path_factory.mktemp("data"))
