"""Small models of KerasHub and of keras.applications, with inputs: every backbone, every network, some tasks.

Each entry of a table is a function that builds a model and its inputs: `model, x = BACKBONES["BertBackbone"]()`.
A name may have a variant after a dash. KerasHub is imported when a model is built: that takes seconds.
"""

import importlib
import io
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

Entry = Callable[[], tuple[keras.Model, Any]]


def _random() -> np.random.Generator:
    return np.random.default_rng(7)


def _ids(length: int, vocabulary: int, batch: int = 2) -> np.ndarray:
    return _random().integers(1, vocabulary, (batch, length)).astype("int32")


def _padding(length: int) -> np.ndarray:
    """A padding mask of two rows; the second row has one token less."""
    mask = np.ones((2, length), "int32")
    mask[1, -1] = 0
    return mask


def _text(length: int = 5, vocabulary: int = 12, *, segments: bool = False, padding: bool = True) -> dict:
    inputs = {"token_ids": _ids(length, vocabulary)}
    if padding:
        inputs["padding_mask"] = _padding(length)
    if segments:
        inputs["segment_ids"] = (np.arange(length) >= length // 2).astype("int32") + np.zeros((2, 1), "int32")
    return inputs


def _pair(length: int = 4, vocabulary: int = 12) -> dict:
    """Inputs of an encoder and a decoder."""
    return {
        "encoder_token_ids": _ids(length + 1, vocabulary),
        "encoder_padding_mask": _padding(length + 1),
        "decoder_token_ids": _ids(length, vocabulary)[::-1].copy(),
        "decoder_padding_mask": _padding(length),
    }


def _floats(*shape: int) -> np.ndarray:
    return _random().random(shape).astype("float32")


def _images(size: int = 32) -> np.ndarray:
    return _floats(2, size, size, 3)


def _hub(name: str) -> Any:
    """A class of KerasHub: a public name, or a path below its models."""
    import keras_hub

    if "." not in name:
        return getattr(keras_hub.models, name, None) or getattr(keras_hub.layers, name)
    module, _, name = name.rpartition(".")
    return getattr(importlib.import_module(f"keras_hub.src.models.{module}"), name)


def _entry(name: str, inputs: Callable[[], Any], **arguments: Any) -> Entry:
    return lambda: (_hub(name)(**arguments), inputs())


# --- Text ---

_ENCODER = {"vocabulary_size": 12, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
_SHORT = _ENCODER | {"max_sequence_length": 6}
_DECODER = {
    "vocabulary_size": 12,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
_GEMMA = _DECODER | {"num_key_value_heads": 1, "hidden_dim": 8, "intermediate_dim": 16, "head_dim": 4}
_GEMMA2 = {
    "query_head_dim_normalize": False,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 50.0,
    "final_logit_soft_cap": 30.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 3,
}
_LINEAR_ATTENTION = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 3,
}
_T5_GEMMA = {
    "vocabulary_size": 12,
    **{
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": 16,
            "intermediate_dim": 24,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        }.items()
    },
    "sliding_window": 3,
    "cross_attention_hidden_size": 16,
    "attn_logit_softcapping": 50.0,
}

_TEXT: dict[str, Entry] = {
    "AlbertBackbone": _entry(
        "AlbertBackbone", lambda: _text(segments=True), **_SHORT, embedding_dim=6, num_groups=1, num_inner_repetitions=2
    ),
    "BartBackbone": _entry("BartBackbone", _pair, **_SHORT),
    "BertBackbone": _entry("BertBackbone", lambda: _text(segments=True), **_SHORT),
    "BloomBackbone": _entry("BloomBackbone", _text, **_ENCODER),
    "DebertaV3Backbone": _entry("DebertaV3Backbone", _text, **_SHORT, bucket_size=4),
    "DistilBertBackbone": _entry("DistilBertBackbone", _text, **_SHORT),
    "ESMBackbone": _entry("ESMBackbone", lambda: _text(padding=False), **_ENCODER),
    "ESMBackbone-absolute": _entry(
        "ESMBackbone",
        lambda: _text(padding=False),
        **_SHORT,
        use_pre_layer_norm=True,
        position_embedding_type="absolute",
    ),
    "EdRecBackbone": _entry(
        "EdRecBackbone",
        _pair,
        vocab_size=12,
        num_layers_enc=2,
        num_layers_dec=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
    ),
    "ElectraBackbone": _entry(
        "ElectraBackbone",
        lambda: _text(segments=True),
        vocab_size=12,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        embedding_dim=6,
        intermediate_dim=16,
        max_sequence_length=6,
    ),
    "FNetBackbone": _entry(
        "FNetBackbone",
        lambda: _text(segments=True, padding=False),
        vocabulary_size=12,
        num_layers=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=6,
    ),
    "FalconBackbone": _entry(
        "FalconBackbone",
        _text,
        vocabulary_size=12,
        num_layers=2,
        num_attention_heads=4,
        hidden_dim=16,
        intermediate_dim=24,
    ),
    "GPT2Backbone": _entry("GPT2Backbone", _text, **_SHORT),
    "GPTNeoXBackbone": _entry("GPTNeoXBackbone", _text, **_SHORT, rotary_percentage=0.5),
    "GemmaBackbone": _entry("GemmaBackbone", _text, **_GEMMA),
    "GemmaBackbone-2": _entry("GemmaBackbone", _text, **_GEMMA, **_GEMMA2),
    "Gemma3Backbone": _entry(
        "Gemma3Backbone", _text, **_GEMMA, image_size=8, use_post_ffw_norm=True, use_post_attention_norm=True
    ),
    "Gemma3nBackbone": _entry(
        "Gemma3nBackbone",
        _text,
        text_vocab_size=12,
        text_hidden_size=8,
        num_hidden_layers=2,
        pad_token_id=0,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        intermediate_size=[16, 16],
        hidden_activation="gelu_approximate",
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=3,
        rope_theta=10000.0,
        max_position_embeddings=8,
        vocab_size_per_layer_input=12,
        hidden_size_per_layer_input=4,
        altup_num_inputs=2,
        laurel_rank=2,
    ),
    "Gemma4Backbone": _entry(
        "Gemma4Backbone", lambda: _text() | {"position_ids": _positions(5)}, **_GEMMA, image_size=8
    ),
    "Gemma4Backbone-moe": _entry(
        "Gemma4Backbone",
        lambda: _text() | {"position_ids": _positions(5)},
        **_GEMMA,
        image_size=8,
        enable_moe_block=True,
        num_experts=4,
        expert_intermediate_dim=8,
        num_experts_per_token=2,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=12,
    ),
    "GptOssBackbone": _entry("GptOssBackbone", _text, **_DECODER, num_experts=3, top_k=2, sliding_window=3),
    "Llama3Backbone": _entry("Llama3Backbone", _text, **_DECODER),
    "Llama3Backbone-tied": _entry("Llama3Backbone", _text, **_DECODER, tie_word_embeddings=True),
    "LlamaBackbone": _entry("LlamaBackbone", _text, **_DECODER),
    "MistralBackbone": _entry("MistralBackbone", _text, **_DECODER, sliding_window=3),
    "MixtralBackbone": _entry("MixtralBackbone", _text, **_DECODER, num_experts=3, top_k=2, sliding_window=3),
    "OPTBackbone": _entry("OPTBackbone", _text, **_SHORT),
    "Phi3Backbone": _entry("Phi3Backbone", _text, **_DECODER),
    "Phi3Backbone-su": _entry(
        "Phi3Backbone",
        _text,
        **_DECODER,
        max_sequence_length=10,
        pretraining_sequence_length=5,
        rope_scaling_type="su",
        rope_scaling_short_factor=[1.1, 1.3],
        rope_scaling_long_factor=[0.9, 0.7],
    ),
    "QwenBackbone": _entry("QwenBackbone", _text, **_DECODER),
    "Qwen3Backbone": _entry("Qwen3Backbone", _text, **_DECODER, head_dim=4),
    "Qwen3MoeBackbone": _entry(
        "Qwen3MoeBackbone",
        _text,
        **_DECODER,
        head_dim=4,
        moe_intermediate_dim=8,
        num_experts=4,
        top_k=2,
        norm_top_k_prob=True,
        mlp_only_layers=[],
    ),
    "Qwen3_5Backbone": _entry("Qwen3_5Backbone", _text, **_DECODER, **_LINEAR_ATTENTION),
    "Qwen3_5MoeBackbone": _entry(
        "Qwen3_5MoeBackbone",
        _text,
        **{name: value for name, value in _DECODER.items() if name != "intermediate_dim"},
        **_LINEAR_ATTENTION,
        moe_intermediate_dim=8,
        shared_expert_intermediate_size=8,
        num_experts=4,
        top_k=2,
    ),
    "QwenMoeBackbone": _entry(
        "QwenMoeBackbone",
        _text,
        **_DECODER,
        moe_intermediate_dim=8,
        shared_expert_intermediate_dim=12,
        num_experts=4,
        top_k=2,
    ),
    "RWKV7Backbone": _entry(
        "RWKV7Backbone",
        lambda: _text(16),  # a multiple of its chunks of 16
        vocabulary_size=12,
        hidden_size=8,
        head_size=4,
        num_layers=2,
        intermediate_dim=16,
        gate_lora=4,
        mv_lora=4,
        aaa_lora=4,
        decay_lora=4,
    ),
    "RobertaBackbone": _entry("RobertaBackbone", _text, **_SHORT),
    "RoformerV2Backbone": _entry(
        "RoformerV2Backbone", lambda: _text(segments=True, padding=False), **_ENCODER, head_size=4
    ),
    "SmolLM3Backbone": _entry(
        "SmolLM3Backbone",
        _text,
        vocabulary_size=12,
        hidden_dim=16,
        intermediate_dim=24,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=False,
        attention_dropout=0.0,
        rope_layer_enabled_list=[True, False],
        layer_types=["attention", "attention"],
        mlp_bias=False,
        layer_norm_epsilon=1e-5,
        max_position_embeddings=8,
        rope_theta=10000.0,
        partial_rotary_factor=1.0,
    ),
    "T5Backbone": _entry("T5Backbone", _pair, **_ENCODER),
    "T5Backbone-untied": _entry(
        "T5Backbone",
        _pair,
        **_ENCODER,
        key_value_dim=6,
        activation="gelu",
        use_gated_activation=False,
        tie_embedding_weights=False,
    ),
    "T5GemmaBackbone": _entry("T5GemmaBackbone", _pair, **_T5_GEMMA),
    "T5Gemma2Backbone": _entry("T5Gemma2Backbone", _pair, **_T5_GEMMA),
    "XLMRobertaBackbone": _entry("XLMRobertaBackbone", _text, **_SHORT),
    "XLNetBackbone": _entry("XLNetBackbone", lambda: _text(segments=True), **_ENCODER),
}


def _positions(length: int) -> np.ndarray:
    return np.tile(np.arange(length, dtype="int32"), (2, 1))


# --- Images ---


def _resnet(block: str = "basic_block", stages: int = 2, width: int = 8, **arguments: Any) -> keras.Model:
    return _hub("ResNetBackbone")(
        input_conv_filters=[64 if block == "basic_block" else width],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64] + [width] * (stages - 1),  # it insists on 64
        stackwise_num_blocks=[1] * stages,
        stackwise_num_strides=[1] + [2] * (stages - 1),
        block_type=block,
        **arguments,
    )


def _mit(**arguments: Any) -> keras.Model:
    return _hub("MiTBackbone")(
        layerwise_depths=[1, 1],
        image_shape=(32, 32, 3),
        hidden_dims=[4, 8],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        **arguments,
    )


def _hgnet(**arguments: Any) -> keras.Model:
    return _hub("HGNetV2Backbone")(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 24],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3], [16, 8, 24, 1, 2, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        **arguments,
    )


def _vit(kind: str = "ViT", **arguments: Any) -> keras.Model:
    width = {"intermediate_dim" if kind == "DeiT" else "mlp_dim": 16}
    arguments = {"image_shape": (16, 16, 3), "patch_size": 8} | arguments
    return _hub(f"{kind}Backbone")(num_layers=2, num_heads=2, hidden_dim=8, **width, **arguments)


def _dino(version: int = 2, **arguments: Any) -> keras.Model:
    arguments = {"num_layers": 2, "patch_size": 8, "image_shape": (16, 16, 3)} | arguments
    if version == 2:
        arguments.setdefault("position_embedding_shape", arguments["image_shape"])
    return _hub(f"DINOV{version}Backbone")(hidden_dim=8, num_heads=2, intermediate_dim=16, **arguments)


def _basnet() -> tuple[keras.Model, Any]:
    encoder = _resnet(stages=4, width=64)
    return _hub("BASNetBackbone")(image_encoder=encoder, num_classes=1), _images(64)


def _d_fine() -> tuple[keras.Model, Any]:
    model = _hub("DFineBackbone")(
        backbone=_hgnet(use_learnable_affine_block=True, out_features=["stage1", "stage2"]),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_labels=4,
        num_denoising=4,
        learn_initial_query=False,
        num_queries=5,
        anchor_image_size=(32, 32),
        feat_strides=[4, 8],
        num_feature_levels=2,
        hidden_dim=16,
        encoder_in_channels=[16, 24],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=16,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        seed=0,
    )
    return model, _images(32)


def _depth_anything() -> tuple[keras.Model, Any]:
    encoder = _dino(num_layers=4, patch_size=14, image_shape=(84, 84, 3), apply_layernorm=True)
    model = _hub("DepthAnythingBackbone")(
        image_encoder=encoder,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[8, 8, 16, 16],
        fusion_hidden_dim=8,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )
    return model, _images(84)


def _deeplab() -> tuple[keras.Model, Any]:
    model = _hub("DeepLabV3Backbone")(
        image_encoder=_resnet(stages=3),
        spatial_pyramid_pooling_key="P4",
        low_level_feature_key="P2",
        upsampling_size=4,
        dilation_rates=[2, 3],
        projection_filters=8,
        image_shape=(32, 32, 3),
    )
    return model, _images(32)


def _retinanet() -> tuple[keras.Model, Any]:
    encoder = _resnet("bottleneck_block", stages=4)
    model = _hub("RetinaNetBackbone")(image_encoder=encoder, min_level=3, max_level=6, use_p5=True)
    return model, _images(64)


def _sam() -> tuple[keras.Model, Any]:
    model = _hub("SAMBackbone")(
        image_encoder=_hub("ViTDetBackbone")(
            hidden_size=16,
            num_layers=2,
            intermediate_dim=24,
            num_heads=2,
            global_attention_layer_indices=[1],
            patch_size=8,
            num_output_channels=8,
            window_size=2,
            image_shape=(16, 16, 3),
        ),
        prompt_encoder=_hub("SAMPromptEncoder")(
            hidden_size=8, image_embedding_size=(2, 2), input_image_size=(16, 16), mask_in_channels=4
        ),
        mask_decoder=_hub("SAMMaskDecoder")(
            num_layers=2,
            hidden_size=8,
            intermediate_dim=16,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=2,
            iou_head_hidden_dim=8,
        ),
    )
    inputs = {
        "images": _images(16),
        "points": _floats(2, 1, 2),
        "labels": np.ones((2, 1), "float32"),
        "boxes": _floats(2, 1, 2, 2),
        "masks": np.zeros((2, 0, 8, 8, 1), "float32"),
    }
    return model, inputs


def _sam3() -> tuple[keras.Model, Any]:
    size = {"num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16, "num_heads": 2}
    image_shape = (28, 28, 3)
    model = _hub("SAM3PromptableConceptBackbone")(
        vision_encoder=_hub("SAM3VisionEncoder")(
            **size,
            image_shape=image_shape,
            patch_size=14,
            fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=image_shape,
            window_size=2,
            global_attn_indexes=[1],
        ),
        text_encoder=_hub("SAM3TextEncoder")(**size, vocabulary_size=12, embedding_dim=8),
        geometry_encoder=_hub("SAM3GeometryEncoder")(**size, roi_size=3),
        detr_encoder=_hub("SAM3DetrEncoder")(**size),
        detr_decoder=_hub("SAM3DetrDecoder")(**size, image_shape=image_shape, patch_size=14, num_queries=4),
        mask_decoder=_hub("SAM3MaskDecoder")(num_upsampling_stages=3, hidden_dim=8, num_heads=2),
    )
    inputs = {
        "pixel_values": _images(28),
        **_text(32),  # its text encoder has 32 positions
        "boxes": _floats(2, 1, 5),
        "box_labels": np.ones((2, 1), "int32"),
    }
    return model, inputs


_IMAGE: dict[str, Entry] = {
    "BASNetBackbone": _basnet,
    "CSPNetBackbone": _entry(
        "CSPNetBackbone",
        _images,
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=2,
        stackwise_num_filters=[8, 16],
        block_type="dark_block",
        stage_type="csp",
        down_growth=True,
        bottle_ratio=(0.5, 1.0),
        block_ratio=(1.0, 0.5),
        expand_ratio=(2.0, 1.0),
        stem_padding="same",
    ),
    "CSPNetBackbone-cross": _entry(
        "CSPNetBackbone",
        _images,
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=2,
        stackwise_num_filters=[8, 16],
        block_type="bottleneck_block",
        stage_type="cs3",
        bottle_ratio=[0.5],
        block_ratio=[0.5],
        stem_padding="same",
    ),
    "DFineBackbone": _d_fine,
    "DINOV2Backbone": lambda: (_dino(), {"images": _images(16)}),
    "DINOV2Backbone-swiglu": lambda: (
        _dino(use_swiglu_ffn=True, num_register_tokens=2, apply_layernorm=True),
        {"images": _images(16)},
    ),
    "DINOV3Backbone": lambda: (_dino(3), {"pixel_values": _images(16)}),
    "DINOV3Backbone-gated": lambda: (_dino(3, use_gated_mlp=True, use_key_bias=False), {"pixel_values": _images(16)}),
    "DeepLabV3Backbone": _deeplab,
    "DeiTBackbone": lambda: (_vit("DeiT"), _images(16)),
    "DenseNetBackbone": _entry(
        "DenseNetBackbone", _images, stackwise_num_repeats=[1, 2], growth_rate=4, image_shape=(32, 32, 3)
    ),
    "DepthAnythingBackbone": _depth_anything,
    "EfficientNetBackbone": _entry(
        "EfficientNetBackbone",
        _images,
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[2, 2],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        input_shape=(32, 32, 3),
    ),
    "HGNetV2Backbone": lambda: (_hgnet(use_learnable_affine_block=True, image_shape=(32, 32, 3)), _images(32)),
    "MiTBackbone": lambda: (_mit(), _images(32)),
    "MobileNetBackbone": _entry(  # its grouped convolutions are slow in eager mode
        "MobileNetBackbone",
        _images,
        stackwise_expansion=[[16], [16]],
        stackwise_num_blocks=[1, 1],
        stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [3]],
        stackwise_num_strides=[[1], [2]],
        stackwise_se_ratio=[[None], [0.25]],
        stackwise_activation=[["relu"], ["hard_swish"], ["hard_swish"]],
        stackwise_padding=[[1], [1]],
        output_num_filters=16,
        input_num_filters=8,
        image_shape=(32, 32, 3),
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=16,
    ),
    "MobileNetV5Backbone": _entry(
        "MobileNetV5Backbone",
        _images,
        stackwise_block_types=[["er"], ["uir", "mqa"]],
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[8], [16, 16]],
        stackwise_strides=[[2], [2, 1]],
        stackwise_act_layers=[["relu"], ["relu", "relu"]],
        stackwise_exp_ratios=[[2.0], [2.0, 2.0]],
        stackwise_se_ratios=[[0.0], [0.0, 0.0]],
        stackwise_dw_kernel_sizes=[[0], [5, 3]],
        stackwise_dw_start_kernel_sizes=[[0], [3, 0]],
        stackwise_dw_end_kernel_sizes=[[0], [0, 0]],
        stackwise_exp_kernel_sizes=[[3], [0, 0]],
        stackwise_pw_kernel_sizes=[[1], [0, 0]],
        stackwise_num_heads=[[0], [0, 2]],
        stackwise_key_dims=[[0], [0, 8]],
        stackwise_value_dims=[[0], [0, 8]],
        stackwise_kv_strides=[[0], [0, 2]],
        stackwise_use_cpe=[[False], [False, False]],
        image_shape=(32, 32, 3),
        stem_size=8,
        num_features=16,
        use_msfa=False,
    ),
    "ResNetBackbone": lambda: (_resnet("bottleneck_block"), _images(32)),
    "ResNetBackbone-v2": lambda: (_resnet(use_pre_activation=True), _images(32)),
    "RetinaNetBackbone": _retinanet,
    "SAM3PromptableConceptBackbone": _sam3,
    "SAMBackbone": _sam,
    "SegFormerBackbone": lambda: (
        _hub("SegFormerBackbone")(image_encoder=_mit(), projection_filters=8),
        _images(32),
    ),
    "SwinTransformerBackbone": _entry(
        "SwinTransformerBackbone",
        _images,
        image_shape=(32, 32, 3),
        embed_dim=8,
        depths=(2, 1),
        num_heads=(1, 2),
        window_size=4,
    ),
    "VGGBackbone": _entry(
        "VGGBackbone", lambda: _images(16), stackwise_num_repeats=[1, 2], stackwise_num_filters=[8, 16]
    ),
    "ViTBackbone": lambda: (_vit(), _images(16)),
    "ViTDetBackbone": _entry(
        "ViTDetBackbone",
        lambda: _images(16),
        image_shape=(16, 16, 3),
        patch_size=4,
        hidden_size=8,
        num_layers=2,
        global_attention_layer_indices=[1],
        intermediate_dim=16,
        num_heads=2,
        num_output_channels=4,
        window_size=2,
    ),
    "XceptionBackbone": _entry(
        "XceptionBackbone",
        _images,
        stackwise_conv_filters=[[8, 8], [16, 16], [24, 24]],
        stackwise_pooling=[False, True, False],
    ),
}


# --- Images with text, sound, video, diffusion ---


def _contrastive(kind: str) -> Entry:
    """CLIP and its relatives."""
    size = {"hidden_dim": 8, "num_layers": 2, "num_heads": 2, "intermediate_dim": 16}

    def build() -> tuple[keras.Model, Any]:
        image = _hub(f"{kind}VisionEncoder")(patch_size=8, image_shape=(16, 16, 3), name="vision_encoder", **size)
        text = _hub(f"{kind}TextEncoder")(
            vocabulary_size=12, embedding_dim=8, max_sequence_length=6, name="text_encoder", **size
        )
        projection = {} if kind == "SigLIP" else {"projection_dim": 8}
        model = _hub(f"{kind}Backbone")(vision_encoder=image, text_encoder=text, **projection)
        return model, {"images": _images(16), "token_ids": _ids(6, 12)}

    return build


def _blip2() -> tuple[keras.Model, Any]:
    size = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
    image = _hub("BLIP2VisionEncoder")(
        **size,
        image_size=16,
        patch_size=8,
        use_patch_bias=True,
        use_class_token=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        initializer_range=0.02,
    )
    qformer = _hub("BLIP2QFormer")(
        **size, num_query_tokens=2, vision_dim=8, cross_attention_frequency=2, dropout=0.0, layer_norm_epsilon=1e-6
    )
    language = _hub("BLIP2CustomOPT")(
        **size, vocabulary_size=12, num_query_tokens=2, qformer_hidden_dim=8, max_sequence_length=8, dropout=0.0
    )
    model = _hub("BLIP2Backbone")(vision_encoder=image, qformer=qformer, language_model=language)
    return model, {"images": _images(16)} | _text()


def _gemma3_vision() -> tuple[keras.Model, Any]:
    encoder = _hub("Gemma3VisionEncoder")(
        image_size=16,
        patch_size=4,
        pool_size=2,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        output_dim=8,
    )
    model = _hub("Gemma3Backbone")(**_GEMMA, image_size=16, vision_encoder=encoder, use_sliding_window_attention=True)
    return model, _text(8) | {"images": _floats(2, 1, 16, 16, 3)} | _vision(8)


def _vision(length: int) -> dict:
    """An image of four tokens from the third position on."""
    mask = np.zeros((2, length), bool)
    mask[:, 2:6] = True
    return {"vision_mask": mask, "vision_indices": np.tile(np.arange(2, 6, dtype="int32"), (2, 1))}


def _gemma4_all() -> tuple[keras.Model, Any]:
    image = _hub("Gemma4VisionEncoder")(
        image_size=16,
        patch_size=4,
        pool_size=2,
        num_layers=1,
        num_heads=2,
        num_key_value_heads=2,
        head_dim=4,
        hidden_dim=8,
        intermediate_dim=16,
        output_dim=8,
    )
    sound = _hub("Gemma4AudioEncoder")(
        input_feat_size=8,
        hidden_size=8,
        num_heads=2,
        num_layers=1,
        chunk_size=4,
        context_left=5,
        context_right=0,
        sscp_conv_channels=(4, 2),
        output_proj_dims=None,
        output_dim=8,
    )
    model = _hub("Gemma4Backbone")(
        **_GEMMA, image_size=16, vision_encoder=image, audio_encoder=sound, num_audio_tokens_per_clip=4
    )
    sounds = np.zeros((2, 12), "int32")
    sounds[:, 7:11] = 1
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(16, 2).astype("int32")
    inputs = {
        **_text(12),
        **_vision(12),
        "position_ids": _positions(12),
        "pixel_values": _floats(2, 1, 16, 48),
        "pixel_position_ids": np.tile(grid, (2, 1, 1, 1)),
        "audio_mel": _floats(2, 1, 16, 8),
        "audio_mel_mask": np.ones((2, 1, 16), "int32"),
        "audio_indices": np.tile(np.arange(7, 11, dtype="int32"), (2, 1)),
        "audio_mask": sounds,
    }
    return model, inputs


def _pali_gemma() -> tuple[keras.Model, Any]:
    model = _hub("PaliGemmaBackbone")(
        **_GEMMA,
        image_size=16,
        vit_patch_size=8,
        vit_num_heads=2,
        vit_hidden_dim=8,
        vit_num_layers=2,
        vit_intermediate_dim=16,
    )
    return model, {"images": _images(16), "response_mask": np.zeros((2, 5), "int32")} | _text()


def _parseq() -> tuple[keras.Model, Any]:
    encoder = _vit(use_class_token=False, name="image_encoder")
    model = _hub("PARSeqBackbone")(
        image_encoder=encoder,
        vocabulary_size=12,
        max_label_length=5,
        decoder_hidden_dim=8,
        num_decoder_layers=1,
        num_decoder_heads=2,
        decoder_mlp_dim=16,
    )
    return model, {"images": _images(16)} | _text()


def _qwen_vision() -> tuple[keras.Model, Any]:
    encoder = _hub("qwen3_5.qwen3_5_vision_encoder.Qwen3_5VisionEncoder")(
        depth=1,
        hidden_size=8,
        num_heads=2,
        intermediate_size=16,
        patch_size=4,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=16,
        num_position_embeddings=16,
    )
    model = _hub("Qwen3_5Backbone")(
        **_DECODER, **_LINEAR_ATTENTION, vision_encoder=encoder, mrope_section=[1, 0, 0], partial_rotary_factor=0.25
    )
    text = {name: value[:1] for name, value in _text(8).items()}
    image = {"pixel_values": _floats(1, 16, 2, 4, 4, 3), "image_grid_thw": np.array([[[1, 4, 4]]], "int32")}
    return model, text | image | {"vision_indices": np.arange(2, 6, dtype="int32")[None]}


def _t5gemma2_vision() -> tuple[keras.Model, Any]:
    encoder = _hub("Gemma3VisionEncoder")(
        image_size=16,
        patch_size=4,
        pool_size=2,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        output_dim=16,
    )
    model = _hub("T5Gemma2Backbone")(**_T5_GEMMA, vision_encoder=encoder, eoi_token_index=11)
    return model, _pair(8) | {"images": _floats(2, 1, 16, 16, 3), "vision_indices": _vision(8)["vision_indices"]}


def _gemma3n_all() -> tuple[keras.Model, Any]:
    image = _hub("MobileNetV5Backbone")(
        stackwise_block_types=[["er"]],
        stackwise_num_blocks=[1],
        stackwise_num_filters=[[8]],
        stackwise_strides=[[1]],
        stackwise_act_layers=[["relu"]],
        stackwise_exp_ratios=[[1.0]],
        stackwise_se_ratios=[[0.0]],
        stackwise_dw_kernel_sizes=[[0]],
        stackwise_dw_start_kernel_sizes=[[0]],
        stackwise_dw_end_kernel_sizes=[[0]],
        stackwise_exp_kernel_sizes=[[3]],
        stackwise_pw_kernel_sizes=[[1]],
        stackwise_num_heads=[[0]],
        stackwise_key_dims=[[0]],
        stackwise_value_dims=[[0]],
        stackwise_kv_strides=[[0]],
        stackwise_use_cpe=[[False]],
        image_shape=(16, 16, 3),
        stem_size=8,
        num_features=8,
        use_msfa=False,
    )
    sound = _hub("gemma3n.gemma3n_audio_encoder.Gemma3nAudioEncoder")(
        hidden_size=8,
        input_feat_size=8,
        sscp_conv_channel_size=[2, 4],
        sscp_conv_kernel_size=[(3, 3), (3, 3)],
        sscp_conv_stride_size=[(2, 2), (2, 2)],
        sscp_conv_group_norm_eps=1e-5,
        num_hidden_layers=1,
        rms_norm_eps=1e-6,
        gradient_clipping=1.0,
        residual_weight=0.5,
        num_attention_heads=2,
        attention_chunk_size=2,
        num_attention_context_right=1,
        num_attention_context_left=1,
        attention_logit_cap=50.0,
        conv_kernel_size=3,
        reduction_factor=1,
    )
    model = _hub("Gemma3nBackbone")(
        text_vocab_size=12,
        text_hidden_size=8,
        num_hidden_layers=2,
        pad_token_id=0,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        intermediate_size=[16, 16],
        hidden_activation="gelu_approximate",
        layer_types=["full_attention", "full_attention"],
        sliding_window=3,
        rope_theta=10000.0,
        max_position_embeddings=8,
        vocab_size_per_layer_input=12,
        hidden_size_per_layer_input=4,
        altup_num_inputs=2,
        laurel_rank=2,
        vision_encoder_config=image.get_config(),
        vision_hidden_size=8,
        vision_vocab_size=4,
        vision_vocab_offset=12,
        vision_soft_tokens_per_image=64,
        image_token_id=10,
        audio_encoder_config=sound.get_config(),
        audio_hidden_size=8,
        audio_vocab_size=4,
        audio_vocab_offset=16,
        audio_soft_tokens_per_image=2,
        audio_token_id=11,
    )
    inputs = {
        **_text(8, 10),
        "images": _floats(2, 1, 16, 16, 3),
        "input_features": _floats(2, 1, 8, 8),
        "input_features_mask": np.zeros((2, 1, 8), bool),
    }
    return model, inputs


def _flux() -> tuple[keras.Model, Any]:
    model = _hub("FluxBackbone")(
        input_channels=8,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[4, 2, 2],
        theta=10000,
        use_bias=True,
        guidance_embed=True,
        image_shape=(4, 8),
        text_shape=(4, 8),
        image_ids_shape=(4, 3),
        text_ids_shape=(4, 3),
        y_shape=(8,),
    )
    inputs = {
        "image": _floats(2, 4, 8),
        "image_ids": _floats(2, 4, 3),
        "text": _floats(2, 4, 8),
        "text_ids": _floats(2, 4, 3),
        "y": _floats(2, 8),
        "timesteps": _floats(2),
        "guidance": _floats(2),
    }
    return model, inputs


def _stable_diffusion() -> tuple[keras.Model, Any]:
    vae = _hub("vae.vae_backbone.VAEBackbone")(
        encoder_num_filters=[32, 32, 32, 32],  # its normalization has groups of 32
        encoder_num_blocks=[1, 1, 1, 1],
        decoder_num_filters=[32, 32, 32, 32],
        decoder_num_blocks=[1, 1, 1, 1],
        sampler_method="mode",  # no noise
        name="vae",
    )
    text = {"vocabulary_size": 12, "num_layers": 2, "num_heads": 2, "intermediate_dim": 16}
    model = _hub("StableDiffusion3Backbone")(
        mmdit_patch_size=2,
        mmdit_hidden_dim=16,
        mmdit_num_layers=2,
        mmdit_num_heads=2,
        mmdit_position_size=16,
        mmdit_qk_norm=None,
        mmdit_dual_attention_indices=None,
        vae=vae,
        clip_l=_hub("CLIPTextEncoder")(
            **text, embedding_dim=8, hidden_dim=8, intermediate_output_index=-2, name="clip_l"
        ),
        clip_g=_hub("CLIPTextEncoder")(
            **text, embedding_dim=16, hidden_dim=16, intermediate_output_index=-2, name="clip_g"
        ),
        image_shape=(32, 32, 3),
    )
    inputs = {
        "images": _images(32),
        "latents": _floats(2, 4, 4, 16),
        "num_steps": np.ones((2,), "int32"),
        "guidance_scale": np.ones((2,), "float32"),
    }
    for name in ("clip_l_token_ids", "clip_l_negative_token_ids", "clip_g_token_ids", "clip_g_negative_token_ids"):
        inputs[name] = _ids(5, 12)
    return model, inputs


def _video_prism() -> tuple[keras.Model, Any]:
    model = _hub("VideoPrismBackbone")(
        num_frames=2,
        patch_size=8,
        hidden_dim=8,
        intermediate_dim=16,
        num_heads=2,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=1,
        vocabulary_size=12,
        num_text_layers=1,
        attention_logit_soft_cap=50.0,
        image_shape=(16, 16, 3),
    )
    return model, {"pixel_values": _floats(2, 2, 16, 16, 3)} | _text()


_OTHERS: dict[str, Entry] = {
    "BLIP2Backbone": _blip2,
    "CLIPBackbone": _contrastive("CLIP"),
    "FluxBackbone": _flux,
    "Gemma3Backbone-vision": _gemma3_vision,
    "Gemma3nBackbone-all": _gemma3n_all,
    "Gemma4Backbone-all": _gemma4_all,
    "MetaCLIP2Backbone": _contrastive("MetaCLIP2"),
    "MoonshineBackbone": _entry(
        "MoonshineBackbone",
        lambda: {
            "encoder_input_values": _floats(2, 1500, 1),
            "encoder_padding_mask": np.ones((2, 1500), bool),
            "decoder_token_ids": _ids(5, 12),
            "decoder_padding_mask": _padding(5).astype(bool),
        },
        vocabulary_size=12,
        filter_dim=16,
        encoder_num_layers=2,
        decoder_num_layers=2,
        hidden_dim=16,
        intermediate_dim=24,
        encoder_num_heads=2,
        decoder_num_heads=2,
    ),
    "PARSeqBackbone": _parseq,
    "PaliGemmaBackbone": _pali_gemma,
    "Qwen3_5Backbone-vision": _qwen_vision,
    "SigLIPBackbone": _contrastive("SigLIP"),
    "StableDiffusion3Backbone": _stable_diffusion,
    "T5Gemma2Backbone-vision": _t5gemma2_vision,
    "VideoPrismBackbone": _video_prism,
    "WhisperBackbone": _entry(
        "WhisperBackbone",
        lambda: {
            "encoder_features": _floats(2, 6, 8),
            "decoder_token_ids": _ids(5, 12),
            "decoder_padding_mask": _padding(5),
        },
        **_ENCODER,
        num_mels=8,
        max_encoder_sequence_length=6,
        max_decoder_sequence_length=6,
    ),
}

BACKBONES: dict[str, Entry] = dict(sorted((_TEXT | _IMAGE | _OTHERS).items()))

# Other public names of classes above.
ALIASES = {"ESM2Backbone": "ESMBackbone", "Qwen2Backbone": "QwenBackbone", "SmolLMBackbone": "SmolLM3Backbone"}

# Base classes: a model of these is a plain Functional one that has no config of its own.
BASES = ("Backbone", "FeaturePyramidBackbone")


# --- keras.applications ---

_ALPHA = {"MobileNet": 0.25, "MobileNetV2": 0.35, "MobileNetV3Large": 0.25, "MobileNetV3Small": 0.25}
_SIZE = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}  # the smallest images they take; others: 32


def _application(name: str) -> Entry:
    def build() -> tuple[keras.Model, Any]:
        size = _SIZE.get(name, 32)
        alpha = {"alpha": _ALPHA[name]} if name in _ALPHA else {}
        model = getattr(keras.applications, name)(input_shape=(size, size, 3), weights=None, classes=4, **alpha)
        return model, _images(size)

    return build


APPLICATIONS: dict[str, Entry] = {
    name: _application(name) for name in dir(keras.applications) if callable(getattr(keras.applications, name))
}


# --- Tasks ---

SENTENCES = [
    "the quick brown fox",
    "the brown dog",
    "a quick dog",
    "a fox at the brown fox",
    "the dog",
    "the fox at a dog",
]

# What `fit` takes, of each task: features, labels; a language model takes the sentences alone.
DATA: dict[str, tuple] = {
    "BertTextClassifier": (SENTENCES, np.array([1, 0, 0, 1, 0, 1])),
    "BertMaskedLM": (SENTENCES,),
    "GPT2CausalLM": (SENTENCES,),
    "GemmaCausalLM": (SENTENCES,),
    "MixtralCausalLM": (SENTENCES,),
    "ResNetImageClassifier": (_floats(4, 32, 32, 3), np.array([0, 1, 2, 1])),
    "SegFormerImageSegmenter": (
        _floats(4, 32, 32, 3),
        np.eye(3, dtype="float32")[_random().integers(0, 3, (4, 32, 32))],
    ),
    "ViTImageClassifier": (_floats(4, 16, 16, 3), np.array([0, 1, 2, 1])),
}


def _bert_tokenizer() -> Any:
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    return _hub("BertTokenizer")(vocabulary=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])


def _gpt2_tokenizer() -> Any:
    """Byte pairs: letters, a space before a word as "Ġ", and some merges."""
    merges = ["Ġ t", "h e", "Ġt he", "Ġ b", "Ġ q", "f o", "fo x", "d o", "do g", "Ġ fox", "Ġ dog", "Ġ a"]
    pieces = {*"abcdefghijklmnopqrstuvwxyzĠ", *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"}
    return _hub("GPT2Tokenizer")(vocabulary={piece: index for index, piece in enumerate(sorted(pieces))}, merges=merges)


def _sentence_pieces(**special: Any) -> bytes:
    """A SentencePiece model, trained on the sentences."""
    import sentencepiece

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=file,
        vocab_size=24,
        model_type="word",
        hard_vocab_limit=False,
        minloglevel=2,
        **special,
    )
    return file.getvalue()


def _preprocessed(task: keras.Model, data: tuple) -> tuple[keras.Model, Any]:
    """A task and its inputs: what its preprocessor makes of the data."""
    if task.preprocessor is None:
        return task, data[0]
    inputs = keras.utils.unpack_x_y_sample_weight(task.preprocessor(*data))[0]
    return task, keras.tree.map_structure(keras.ops.convert_to_numpy, inputs)


def _bert_classifier() -> tuple[keras.Model, Any]:
    tokenizer = _bert_tokenizer()
    task = _hub("BertTextClassifier")(
        backbone=_hub("BertBackbone")(**_SHORT | {"vocabulary_size": tokenizer.vocabulary_size()}),
        preprocessor=_hub("BertTextClassifierPreprocessor")(tokenizer, sequence_length=6),
        num_classes=2,
    )
    return _preprocessed(task, DATA["BertTextClassifier"])


def _bert_masked_lm() -> tuple[keras.Model, Any]:
    tokenizer = _bert_tokenizer()
    task = _hub("BertMaskedLM")(
        backbone=_hub("BertBackbone")(**_SHORT | {"vocabulary_size": tokenizer.vocabulary_size()}),
        preprocessor=_hub("BertMaskedLMPreprocessor")(
            tokenizer, sequence_length=6, mask_selection_rate=0.5, mask_selection_length=2
        ),
    )
    return _preprocessed(task, DATA["BertMaskedLM"])


def _causal_lm(kind: str, tokenizer: Any, **arguments: Any) -> tuple[keras.Model, Any]:
    task = _hub(f"{kind}CausalLM")(
        backbone=_hub(f"{kind}Backbone")(**arguments | {"vocabulary_size": tokenizer.vocabulary_size()}),
        preprocessor=_hub(f"{kind}CausalLMPreprocessor")(tokenizer, sequence_length=12),
    )
    return _preprocessed(task, DATA[f"{kind}CausalLM"])


def _gemma_lm() -> tuple[keras.Model, Any]:
    pieces = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    names = {"pad_piece": "<pad>", "bos_piece": "<bos>", "eos_piece": "<eos>", "unk_piece": "<unk>"}
    tokenizer = _hub("GemmaTokenizer")(proto=_sentence_pieces(**pieces, **names))
    return _causal_lm("Gemma", tokenizer, **_GEMMA, **_GEMMA2)


def _mixtral_lm() -> tuple[keras.Model, Any]:
    tokenizer = _hub("MixtralTokenizer")(proto=_sentence_pieces())
    return _causal_lm("Mixtral", tokenizer, **_DECODER, num_experts=3, top_k=2, sliding_window=4)


def _image_task(name: str, backbone: Callable[[], keras.Model], **arguments: Any) -> Entry:
    return lambda: _preprocessed(_hub(name)(backbone=backbone(), num_classes=3, **arguments), DATA[name])


TASKS: dict[str, Entry] = {
    "BertTextClassifier": _bert_classifier,
    "BertMaskedLM": _bert_masked_lm,
    "GPT2CausalLM": lambda: _causal_lm("GPT2", _gpt2_tokenizer(), **_ENCODER, max_sequence_length=12),
    "GemmaCausalLM": _gemma_lm,
    "MixtralCausalLM": _mixtral_lm,
    "ResNetImageClassifier": _image_task(
        "ResNetImageClassifier", lambda: _resnet("bottleneck_block", image_shape=(32, 32, 3)), pooling="avg"
    ),
    "SegFormerImageSegmenter": _image_task(
        "SegFormerImageSegmenter", lambda: _hub("SegFormerBackbone")(image_encoder=_mit(), projection_filters=8)
    ),
    "ViTImageClassifier": _image_task("ViTImageClassifier", _vit),
}

ALL: dict[str, Entry] = BACKBONES | APPLICATIONS | TASKS

# One of each kind; each builds within a second.
QUICK = ("GPT2Backbone",)  # a decoder, with a tied embedding
"""Those that are tried in every run of the tests. The others take minutes: `make test-all`."""

# Minutes each, or gigabytes.
SLOW = ("BASNetBackbone", "ConvNeXtLarge", "ConvNeXtXLarge", "EfficientNetB7", "EfficientNetV2L", "NASNetLarge")
