"""Settings of every test process."""

import fnmatch
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
# The threads of NumPy's algebra wait for each other busily: on full cores, Bayesian searches take three times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis  # noqa: F401  # imported later, it would miss what is frozen below
import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

# Two test processes share the cores.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
    framework_config.disable_op_determinism()  # a training run switches it on for its process
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(autouse=True, scope="module")
def _garbage_collected():
    yield
    gc.collect()  # after each test it would take half of the time


# The tiers. Tests and files have marks of their own: `integration`, `slow`, `rare`. What has none is a unit test.
# `make test` has one of each kind that takes long: a run, a search, an export, files of each earlier version, a
# whole model.
# Here are tests of many cases that are not all of one tier. "not" goes before a pattern that is not to match.

# `make test` has these cases; the others are marked as integration.
UNIT_CASES = {
    "tests/layers/test_remembered.py::test_remembered_kernel_is_right_after_a_change": ("graph-*", "xla-k"),
    "tests/selectors/test_thresholds.py::test_choose_from_large_inputs": ("40009-*",),
    "tests/selectors/test_thresholds.py::test_choose_equals_a_sort": ("plain", "plain_*_hint", "histograms", "numpy*"),
    "tests/selectors/test_thresholds.py::test_choose_in_passes_of_a_fixed_number": ("normal", "two_values"),
    "tests/selectors/test_thresholds.py::test_find_threshold_takes_many_passes_for_no_input": ("0.5-*-None",),
    "tests/conversion/test_finetuning.py::test_finetune_keeps_zeros_everywhere": ("constructed-rescaled",),
    "tests/conversion/test_finetuning.py::test_finetune_of_every_model": ("block",),
    "tests/conversion/test_finetuning.py::test_finetune_of_masks_too": ("top_k",),
    "tests/conversion/test_finetuning.py::test_finetuned_weights_fit_into_the_masked_model_and_back": ("keep-False",),
    "tests/conversion/test_finetuning.py::test_stripped_model_trains_its_biases": ("True",),
    "tests/conversion/test_flops.py::test_flops_of_every_model": ("block",),
    "tests/conversion/test_removal.py::test_remove_dead_in_a_chain_of_layers": (
        "folds*",
        "only_read_by_what_leaves",
        "valid",
        "same_of_*",
        "zero_padding_of_others",
        "pooled_and_flattened",
        "depthwise",
        "transposed_of_others",
        "groups",
    ),
    "tests/conversion/test_removal.py::test_remove_dead_where_branches_join": ("add_*", "multiply", "concatenate"),
    "tests/conversion/test_removal.py::test_remove_dead_in_other_dtypes": ("mixed_bfloat16-*",),
    "tests/conversion/test_preprocessing.py::test_put_first_gives_the_outputs_of_both": (
        "functional-masked",
        "subclassed-*",
    ),
    "tests/conversion/test_preprocessing.py::test_put_first_leaves_a_model_that_can_be_saved": ("functional",),
    "tests/conversion/test_masking.py::test_mask_model_of_every_network": ("not *resnet*", "resnet18", "resnet34"),
    "tests/conversion/test_heads.py::test_replace_head_keeps_all_else": ("not application",),
    "tests/conversion/test_odd_models.py::test_odd_model_round_trip": ("variables_without_names-*",),
    "tests/conversion/test_round_trips.py::test_round_trip_convert_train_save_load_strip": ("nested_sequential-*",),
    "tests/layers/test_masked_layer.py::test_masked_layer_comes_back_from_files": ("not *_bias",),
    "tests/layers/test_masked_layer.py::test_masked_layer_chooses_in_a_saved_model": ("dense",),
    "tests/layers/test_masked_layer.py::test_masked_layer_gives_scores_the_gradient_of_the_formula": ("not *_bias*",),
    "tests/layers/test_masked_layer.py::test_masked_layer_has_regularizers": ("not *_bias*",),
    "tests/layers/test_masked_layer.py::test_masked_layer_passes_the_layer_test_of_keras": ("not *_bias*",),
    "tests/layers/test_masked_layer.py::test_masked_layer_trains_its_scores_only": (
        "float32-{}-dense*",
        "float32-{}-einsum_dense",
        "float32-{}-conv2d",
        "float32-{}-depthwise2d",
        "float32-{}-conv2d_transpose",
        "float32-{}-embedding",
    ),
    "tests/layers/test_recurrent.py::test_recurrent_layers_train_and_come_back": ("top_k-lstm",),
    "tests/layers/test_remembered.py::test_remembered_kernel_is_made_once": ("top_k", "n_m"),
    "tests/layers/test_kernel_groups.py::test_training_chooses_the_same_masks_in_all_ways": (),
    "tests/datasets/test_dataset.py::test_training_batches_depend_on_the_epoch_and_the_seed_alone": ("ArraySource",),
    "tests/datasets/test_parts.py::test_parts_are_those_of_the_whole_batches": ("7-*-FileSource",),
    "tests/callbacks/test_callbacks.py::test_restrict_swaps_lets_a_part_of_them_happen": ("score_uniform-0.3",),
    "tests/callbacks/test_redraws.py::test_a_run_that_goes_on_draws_the_same": (),
    "tests/search/test_search.py::test_search_finds_the_better_of_two": (),
    "tests/selectors/test_group_thresholds.py::test_find_thresholds_equal_a_sort": ("plain", "numpy*"),
    "tests/selectors/test_group_thresholds.py::test_find_thresholds_of_large_kernels": ("0.5-*-plain", "0.0-*-numpy"),
    "tests/selectors/test_choices.py::test_choice_is_that_of_the_oracle": ("not xla-*",),
    "tests/layers/test_masked_layer.py::test_masked_layer_sorts_nothing_in_a_step_by_xla": ("dense", "conv2d"),
    "tests/search/test_proposals.py::test_proposals_after_a_cut_are_those_without_it": ("not bayesian",),
    "tests/search/test_proposals.py::test_proposals_follow_the_seed": ("not bayesian",),
    "tests/search/test_proposals.py::test_proposals_say_how_many_they_will_be": ("not bayesian",),
    "tests/search/test_proposals.py::test_proposals_to_several_workers_can_be_cut_too": ("not bayesian",),
    "tests/test_examples.py::test_python_blocks_of_pages_run": ("README.md",),
    "tests/test_examples.py::test_docstring_examples": ("*selectors*", "*initializers*", "*callbacks*", "*masking"),
    "tests/test_draws.py::test_evaluate_draws_gives_what_is_computed_by_hand": ("True",),
    "tests/test_models.py::test_models_are_built_and_built_again": ("not *resnet*", "resnet18", "resnet34"),
    "tests/test_models.py::test_models_take_an_activation": ("not *resnet*", "resnet8"),
    "tests/test_models.py::test_models_have_the_stem_for_their_images": ("resnet18",),
    "tests/test_models.py::test_models_scale_every_layer_but_the_last": ("not *resnet*", "resnet18", "resnet34"),
    "tests/tickets/test_api.py::test_load_ticket_gives_every_model_back": ("nested_sequential-*",),
    "tests/tickets/test_kinds_of_masks.py::test_ticket_holds_what_was_drawn_anew": ("signed_constant-top_k",),
    "tests/tickets/test_kinds_of_masks.py::test_ticket_of_every_selector_comes_back": (
        "seed-signed",
        "seed-multicoat",
        "seed-n_m",
        "seed-block",
        "seed-top_k:*",
    ),
    "tests/tickets/test_kinds_of_masks.py::test_wrong_kinds_of_masks_are_errors": ("False-*",),
    "tests/tickets/test_pack_format.py::test_damaged_packs_are_errors": ("0",),
    "tests/tickets/test_base.py::test_ticket_with_a_base_holds_what_differs": ("magnitude-other_names",),
    "tests/tickets/test_base.py::test_ticket_with_a_base_refuses_another": ("load",),
    "tests/tickets/test_base.py::test_ticket_with_a_base_of_other_dtypes": ("float16",),
    "tests/tickets/test_base.py::test_load_ticket_refuses_wrong_descriptions_of_a_base": ("*99*",),
}

_SOME_MODELS = (
    "nested_sequential-*",
    "transformer-*",
    "shared_two_in_two_out-random",
    "subclassed-random",
    "recurrent-random",
    "unknown-random",
)

# `make test` and `make test-more` have these cases; the others are marked as rare.
USUAL_CASES = {
    "tests/conversion/test_finetuning.py::test_finetune_keeps_zeros_everywhere": ("keep-*", "constructed-rescaled"),
    "tests/conversion/test_finetuning.py::test_finetuned_weights_fit_into_the_masked_model_and_back": (
        "keep-False",
        "random-True",
    ),
    "tests/conversion/test_masking.py::test_mask_model_of_every_network": ("not *resnet*", "resnet??"),
    "tests/conversion/test_round_trips.py::test_round_trip_convert_train_save_load_strip": _SOME_MODELS,
    "tests/exports/test_api.py::test_export_of_every_model": (
        "nested_sequential",
        "shared_two_in_two_out",
        "subclassed",
        "transformer",
        "recurrent",
    ),
    "tests/exports/test_litert_int8.py::test_with_int8_weights_of_every_layer": (
        "dense",
        "einsum_dense",
        "conv2d",
        "conv2d_groups",
        "depthwise2d",
        "conv2d_transpose",
    ),
    "tests/layers/test_masked_layer.py::test_masked_layer_comes_back_from_files": ("not *_bias", "dense_rank3_bias"),
    "tests/layers/test_masked_layer.py::test_masked_layer_chooses_in_a_saved_model": (
        "dense",
        "einsum_dense",
        "conv2d",
        "depthwise2d",
    ),
    "tests/layers/test_masked_layer.py::test_masked_layer_trains_its_scores_only": (
        "float32-{}-*",
        "*-dense",
        "*-conv2d",
    ),
    "tests/layers/test_recurrent.py::test_recurrent_layers_train_and_come_back": (
        "top_k-lstm",
        "bernoulli-gru",
        "top_k-simple",
        "top_k-rnn",
        "top_k-stacked",
        "top_k-bidirectional",
    ),
    "tests/selectors/test_thresholds.py::test_choose_equals_a_sort": ("not eager",),  # one operation after the other
    "tests/selectors/test_thresholds.py::test_choose_in_passes_of_a_fixed_number": ("normal", "two_values", "all_nan"),
    "tests/test_examples.py::test_benchmark": ("train_step.py---models*", "devices.py*"),
    "tests/test_examples.py::test_example": ("not text_classifier.py",),
    "tests/test_import.py::test_import_makes_load_model_find_the_layers": ("import keras_popup, keras",),
    "tests/test_models.py::test_models_are_built_and_built_again": ("not *resnet*", "resnet??"),
    "tests/test_models.py::test_models_scale_every_layer_but_the_last": ("not *resnet*", "resnet??"),
    "tests/tickets/test_api.py::test_load_ticket_gives_every_dtype_back": (
        "random-*",
        "keep-mixed_bfloat16",
        "keep-float64",
    ),
    "tests/tickets/test_api.py::test_load_ticket_gives_every_layer_back": ("*-0.3", "dense-*", "conv2d-*"),
    "tests/tickets/test_api.py::test_load_ticket_gives_every_model_back": _SOME_MODELS,
    "tests/tickets/test_api.py::test_load_ticket_gives_every_network_back": ("not *resnet*", "resnet18", "resnet50"),
    "tests/tickets/test_pack_format.py::test_hostile_packs_do_no_harm": ("0",),
    "tests/tickets/test_task_masks.py::test_tasks_of_every_model": (
        "nested_sequential",
        "shared_two_in_two_out",
        "subclassed",
        "transformer",
        "recurrent",
        "spectral",
    ),
    "tests/training/test_run.py::test_train_resumed_has_the_same_statistics": (),
    "tests/training/test_run.py::test_train_learns_in_every_variant": (
        "*'dense'*",
        "*'mixed_bfloat16'*",
        "*'crop_flip'*",
        "*'supermask'*",
    ),
    "tests/search/test_proposals.py::test_proposals_after_a_cut_are_those_without_it": ("not bayesian",),
    "tests/search/test_proposals.py::test_proposals_follow_the_seed": ("not bayesian",),
}


def is_among(case, patterns):
    return any(fnmatch.fnmatchcase(case, each.removeprefix("not ")) != each.startswith("not ") for each in patterns)


def pytest_collection_finish(session):
    # What the imports have made stays for ever. Frozen, it is not looked through at each collection of garbage.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    for item in items:
        test, _, case = item.nodeid.removesuffix("]").partition("[")
        if test in UNIT_CASES and not is_among(case, UNIT_CASES[test]):
            item.add_marker("integration")
        if test in USUAL_CASES and not is_among(case, USUAL_CASES[test]):
            item.add_marker("rare")
