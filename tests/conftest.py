"""Settings of every test process."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

# Two test processes share the cores.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
    framework_config.disable_op_determinism()  # a training run switches it on for its process
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(autouse=True, scope="module")
def _garbage_collected():
    yield
    gc.collect()  # after each test it would take half of the time


# The tiers. What is not named here and has no mark of its own is a unit test: `make test`.
# `make test-integration`: processes of their own, whole runs, searches, executed pages, round trips of whole models.
INTEGRATION = (
    "tests/benchmarks/",
    "tests/search/test_proposals.py::test_proposals_after_a_cut_are_those_without_it[bayesian]",
    "tests/search/test_proposals.py::test_proposals_follow_the_seed[bayesian]",
    "tests/conversion/test_hub.py",
    "tests/conversion/test_odd_models.py",
    "tests/conversion/test_golden_models.py",
    "tests/conversion/test_round_trips.py::test_round_trip_convert_train_save_load_strip",
    "tests/conversion/test_round_trips.py::test_round_trip_of_random_graphs",
    "tests/conversion/test_masking.py::test_mask_model_of_every_network[resnet101]",
    "tests/conversion/test_masking.py::test_mask_model_of_every_network[wide_resnet50]",
    "tests/layers/test_composite.py::test_masked_composite_stays_frozen_in_files",
    "tests/selectors/test_thresholds.py::test_choose_equals_a_sort[eager]",  # of the XLA program, one operation after the other
    "tests/tickets/test_api.py::test_load_ticket_keeps_trainable_flags",
    "tests/conversion/test_stripping.py::test_strip_masks_gives_what_loads_without_keras_popup",
    "tests/test_import.py::test_import_makes_load_model_find_the_layers",
    "tests/test_import.py::test_import_counts_no_names",
    "tests/tickets/test_file_format.py::test_write_that_is_killed_leaves_a_whole_file",
    "tests/tickets/test_api.py::test_save_ticket_on_a_full_disk",
    "tests/tickets/test_api.py::test_load_ticket_in_a_process_of_its_own",
    "tests/tickets/test_file_format.py::test_read_and_a_reader_written_from_the_documentation",
    "tests/tickets/test_api.py::test_load_ticket_gives_every_model_back",
    "tests/tickets/test_api.py::test_load_ticket_gives_every_network_back",
    "tests/tickets/test_api.py::test_save_ticket_of_trained_and_loaded_models",
    # Every layer is fitted in float32 in `make test`.
    "tests/layers/test_masked_layer.py::test_masked_layer_trains_its_scores_only",
    "tests/test_examples.py::test_example",
    "tests/test_examples.py::test_benchmark",
    "tests/test_examples.py::test_python_blocks",
)
# One of each kind is in `make test` all the same: a run, a kill and going on, a search, an export, a whole model.
SMOKE = (
    "tests/training/test_run.py::test_train_leaves_a_run_folder",
    "tests/training/test_run.py::test_train_killed_and_resumed",
    "tests/exports/test_api.py::test_export_in_every_format",
    "tests/conversion/test_odd_models.py::test_odd_model_round_trip[variables_without_names-",
    "tests/conversion/test_golden_models.py::test_golden_model_is_read_as_it_was",
    "tests/conversion/test_round_trips.py::test_round_trip_convert_train_save_load_strip[nested_sequential-",
    "tests/test_import.py::test_import_makes_load_model_find_the_layers[import keras_popup, keras]",
    "tests/tickets/test_api.py::test_load_ticket_gives_every_model_back[nested_sequential-",
    "tests/layers/test_masked_layer.py::test_masked_layer_trains_its_scores_only[float32-{}-",
    "tests/test_examples.py::test_python_blocks_of_pages_run[README.md]",
)

# Of what is marked as slow by the dozen, a sample stays in `make test-slow`; the rest is run by `make test-all`.
DOZENS = (
    "tests/conversion/test_round_trips.py::test_round_trip_convert_train_save_load_strip",
    "tests/tickets/test_api.py::test_load_ticket_gives_every_layer_back",
    "tests/tickets/test_api.py::test_load_ticket_gives_every_model_back[",
)
SAMPLE = ("[nested_sequential", "[transformer", "[conv2d", "[dense-")


def pytest_collection_modifyitems(items):
    for item in items:
        is_in_sample = not item.nodeid.startswith(DOZENS) or any(name in item.nodeid for name in SAMPLE)
        if item.get_closest_marker("slow") and not is_in_sample:
            item.add_marker("rare")
        if item.nodeid.startswith(INTEGRATION) and not item.nodeid.startswith(SMOKE):
            item.add_marker("integration")
