"""A tiny configuration of every family that transformers has a text classifier for.

Sizes that many configurations know are given once; what is a family's own stands below its name.
"""

from __future__ import annotations

from typing import Any

# Of a configuration only what it knows is set.
COMMON: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    # mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    # latent attention
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    # linear attention and state spaces
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
IDS = {"pad_token_id": 0, "unk_token_id": 1, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
# Of the part of a configuration that is for pictures.
PICTURES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "depth": 1,
    "num_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
HALF_LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
# None takes one of the common settings away.
OWN: dict[str, dict[str, Any]] = {
    "axk1": {"num_key_value_heads": 4},
    "axk2": {
        "num_key_value_heads": 4,
        "index_n_heads": 2,
        "index_head_dim": 16,
        "index_topk": 64,
        "gated_norm_rank": 4,
    },
    "canine": {"max_position_embeddings": 16384, "num_hash_buckets": 16},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
        "sliding_window": 6,
    },
    "ctrl": {"dff": 48},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16},
    "deberta-v2": {  # as DeBERTa-v3 has it
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "max_relative_positions": 16,
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "deepseek_v2": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4, "first_k_dense_replace": 1},
    "esmc": {"num_key_value_heads": 4},
    "falcon": {"head_dim": None, "ffn_hidden_size": 48},
    "funnel": {"num_hidden_layers": None, "block_sizes": [1, 1], "d_head": 8, "d_inner": 48},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "lilt": {"hidden_size": 48},
    "longformer": {"attention_window": 8},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "markuplm": {
        "tag_pad_id": 7,
        "subs_pad_id": 7,
        "max_depth": 4,
        "xpath_unit_hidden_size": 4,
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
    },
    "mobilebert": {"embedding_size": 16},
    "minicpm3": {"num_key_value_heads": 4, "head_dim": None},
    "minimax": HALF_LINEAR,
    "mistral4": {
        "num_key_value_heads": 4,
        "rope_parameters": {
            **ROPE,
            "partial_rotary_factor": 0.5,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64,
        },
    },
    "mpt": {"max_seq_len": 64},
    "perceiver": {
        "num_latents": 4,
        "d_latents": 16,
        "d_model": 32,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
    "qwen3_5_text": HALF_LINEAR,
    "qwen3_next": HALF_LINEAR,
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 8],
        "attention_head_size": 8,
        "attn_layers": ["local", "lsh"],
        "feed_forward_size": 48,
        "num_buckets": 2,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "roc_bert": {
        "pronunciation_vocab_size": 8,
        "shape_vocab_size": 8,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "squeezebert": {"embedding_size": 32},
    "tapas": {"type_vocab_sizes": [3, 4, 4, 2, 4, 4, 3]},
    "xlnet": {"max_position_embeddings": None, "d_head": 8, "d_inner": 48},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "num_key_value_heads": 4,
        "head_dim": None,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"],
        "num_key_value_heads": 4,
        "head_dim": None,
        "kv_channels": 8,
        "num_query_groups": 4,
        "adapter_rank": 4,
        "n_mamba_heads": 4,
    },
}


def tiny_settings(model_type: str) -> dict[str, Any]:
    """Settings for `AutoConfig.for_model`; none of an encoder-decoder, which no one builds."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(model_type)
    if getattr(default, "is_encoder_decoder", False):
        return {}
    text = default.get_text_config()
    settings = {**_known(text, {**COMMON, **IDS}), **OWN.get(text.model_type, {})}
    if text is not default:
        parts = [name for name in default.sub_configs if name != "text_config"]
        pictures = {name: _known(getattr(default, name), PICTURES) for name in parts}
        settings = {"text_config": settings, **pictures, **IDS}
    settings |= {**IDS, **OWN.get(model_type, {})}
    return {name: value for name, value in settings.items() if value is not None}


def _known(config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if hasattr(config, name)}
