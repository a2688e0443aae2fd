"""A tiny random config for every image classifier of transformers that takes pixels and gives logits."""

from typing import Any, NamedTuple

from transformers import AutoConfig, PreTrainedConfig


class Tiny(NamedTuple):
    """What ``AutoConfig.for_model`` needs, and the side in pixels of the images."""

    size: int
    values: dict[str, Any]


_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_SQUARE_VIT = {**_VIT, "image_size": 32, "patch_size": 8}
_TEXT = {**_VIT, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2}
_CLIP = {"vision_config": _SQUARE_VIT, "text_config": _TEXT}
_STAGES = {"hidden_sizes": [8, 16], "depths": [2, 1]}
_RESNET = {**_STAGES, "embedding_size": 8}
_CONVNEXT = {**_STAGES, "num_stages": 2, "image_size": 32}
_SWIN = {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32}
_PYRAMID = {
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "num_encoder_blocks": 2,
    "patch_sizes": [4, 2],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "sr_ratios": [2, 1],
}
# transformers' default for the dropout, 0.999, is what TensorFlow keeps, not what it drops
_MOBILENET = {"image_size": 32, "depth_multiplier": 0.125, "classifier_dropout_prob": 0.001}
_BLOCKS = [[[3, 8, 8, 2, squeeze]] for squeeze in (False, False, False, True, True)]

TINY: dict[str, Tiny] = {
    "beit": Tiny(32, {**_SQUARE_VIT, "use_relative_position_bias": True, "out_indices": [2]}),
    "bit": Tiny(32, {**_RESNET, "num_groups": 4}),
    "clip": Tiny(32, _CLIP),
    "convnext": Tiny(32, _CONVNEXT),
    "convnextv2": Tiny(32, _CONVNEXT),
    "cvt": Tiny(32, {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]}),
    "data2vec-vision": Tiny(32, {**_SQUARE_VIT, "use_relative_position_bias": True, "out_indices": [0, 0, 1, 1]}),
    "deit": Tiny(32, _SQUARE_VIT),
    "dinov2": Tiny(32, _SQUARE_VIT),
    "dinov2_with_registers": Tiny(32, _SQUARE_VIT),
    "donut-swin": Tiny(32, _SWIN),
    "efficientnet": Tiny(
        32,
        {
            "image_size": 32,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.5,
            "hidden_dim": 320,
            "in_channels": [32, 16, 24],
            "out_channels": [16, 24, 40],
            "kernel_sizes": [3, 3, 5],
            "strides": [1, 2, 2],
            "num_block_repeats": [1, 2, 2],
            "expand_ratios": [1, 6, 6],
        },
    ),
    "focalnet": Tiny(
        32,
        {**_STAGES, "image_size": 32, "embed_dim": 8, "focal_levels": [2, 2], "focal_windows": [3, 3]},
    ),
    "hgnet_v2": Tiny(
        32,
        {
            "embedding_size": 8,
            "depths": [1, 1],
            "hidden_sizes": [16, 32],
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 16],
            "stage_mid_channels": [8, 8],
            "stage_out_channels": [16, 32],
            "stage_num_blocks": [1, 1],
            "stage_downsample": [False, True],
            "stage_downsample_strides": [2, 2],
            "stage_light_block": [False, True],
            "stage_kernel_size": [3, 5],
            "stage_numb_of_layers": [2, 2],
        },
    ),
    "hiera": Tiny(
        32,
        {
            "image_size": [32, 32],
            "embed_dim": 8,
            "depths": [1, 1, 2],
            "num_heads": [1, 1, 2],
            "num_query_pool": 2,
            "masked_unit_size": [4, 4],
            "masked_unit_attention": [True, False, False],
        },
    ),
    "ijepa": Tiny(32, _SQUARE_VIT),
    "levit": Tiny(
        64,
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 16],
            "num_attention_heads": [1, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [4, 4, 4],
            "down_ops": [["Subsample", 4, 2, 2, 2, 2], ["Subsample", 4, 2, 2, 2, 2]],
        },
    ),
    "metaclip_2": Tiny(32, _CLIP),
    "mobilenet_v1": Tiny(32, _MOBILENET),
    "mobilenet_v2": Tiny(32, _MOBILENET),
    "mobilevit": Tiny(
        64,
        {
            "image_size": 64,
            "hidden_sizes": [8, 12, 16],
            "neck_hidden_sizes": [4, 4, 8, 8, 12, 12, 16],
            "num_attention_heads": 2,
            "expand_ratio": 2.0,
        },
    ),
    "mobilevitv2": Tiny(
        64,
        {"image_size": 64, "width_multiplier": 0.125, "n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [64, 64, 64]},
    ),
    "perceiver": Tiny(
        32,
        {
            "image_size": 32,
            "num_latents": 8,
            "d_latents": 16,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 1,
        },
    ),
    "poolformer": Tiny(
        32,
        {**_STAGES, "num_encoder_blocks": 2, "patch_sizes": [4, 2], "strides": [4, 2], "padding": [2, 1]},
    ),
    "pp_lcnet": Tiny(32, {"block_configs": _BLOCKS, "stem_channels": 8, "class_expand": 32}),
    "pvt": Tiny(32, {**_PYRAMID, "image_size": 32, "sequence_reduction_ratios": [2, 1]}),
    "pvt_v2": Tiny(32, {**_PYRAMID, "image_size": [32, 32], "patch_sizes": [3, 3]}),
    "regnet": Tiny(32, {**_RESNET, "groups_width": 4}),
    "resnet": Tiny(32, _RESNET),
    "segformer": Tiny(32, {**_PYRAMID, "patch_sizes": [3, 3]}),
    "siglip": Tiny(32, _CLIP),
    "swiftformer": Tiny(
        32,
        {"image_size": 32, "depths": [1, 1], "embed_dims": [8, 16], "downsamples": [True, True]},
    ),
    "swin": Tiny(32, _SWIN),
    "swinv2": Tiny(32, {**_SWIN, "pretrained_window_sizes": [0, 0]}),
    "textnet": Tiny(
        32,
        {
            "image_size": [32, 32],
            "stem_out_channels": 8,
            "hidden_sizes": [8, 8, 16],
            "conv_layer_kernel_sizes": [[[3, 3], [3, 1]], [[3, 3], [1, 3]]],
            "conv_layer_strides": [[1, 2], [2, 1]],
        },
    ),
    "timm_wrapper": Tiny(32, {"architecture": "test_resnet"}),
    "vit": Tiny(32, _SQUARE_VIT),
    "vit_msn": Tiny(32, _SQUARE_VIT),
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Return the tiny config of a model type."""
    return AutoConfig.for_model(model_type, **TINY[model_type].values)
