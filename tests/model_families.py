"""Tiny random models of the families of causal language models that people train, from transformers' config classes.

Each has at least one layer of each of its kinds, windows and chunks shorter than the sequences that are scored, and
weights large enough that what a layer does shows in the log-probabilities.
"""

from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY = 512  # tokens of the tokenizer that the models are made with
BASE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.1,
}  # fmt: skip
HEADS = {"num_key_value_heads": 4}  # no grouped queries
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 48, "initializer_range": 0.1}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "decoder_sparse_step": 1,
}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
ROPE = {"rope_theta": 10000.0, "original_max_position_embeddings": 64, "factor": 4.0}
LLAMA3 = {**ROPE, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8,
         "mamba_expand": 2, "mamba_d_conv": 4}  # fmt: skip
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
          "linear_conv_kernel_dim": 4}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
          "image_size": 28, "patch_size": 14}  # fmt: skip

# By name: the config class without "Config", and its settings besides BASE (...: none of that name)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Llama, biases, tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "Llama, llama3 RoPE": ("Llama", {"rope_parameters": LLAMA3}),
    "Llama, YaRN": ("Llama", {"rope_parameters": {**ROPE, "rope_type": "yarn"}}),
    "Ministral": ("Ministral", {"sliding_window": 8}),
    "Mistral": ("Mistral", {"sliding_window": 8}),
    "Qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "Qwen3": ("Qwen3", {"tie_word_embeddings": True}),
    "Qwen2 MoE": ("Qwen2Moe", EXPERTS),
    "Qwen3 MoE": ("Qwen3Moe", EXPERTS),
    "Mixtral, jitter": ("Mixtral", {**EXPERTS, "router_jitter_noise": 0.1, "output_router_logits": True}),
    "Phi 3.5 MoE": ("Phimoe", EXPERTS),
    "OLMo": ("Olmo", {}),
    "OLMo 2": ("Olmo2", {}),
    "OLMo 3": ("Olmo3", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "OLMoE": ("Olmoe", EXPERTS),
    "Gemma": ("Gemma", {}),
    "Gemma 2": ("Gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
                           "final_logit_softcapping": 3.0}),
    "Gemma 3": ("Gemma3Text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
                               "query_pre_attn_scalar": 8}),
    "Gemma 3, images": ("Gemma3", {
        "text_config": {**BASE, "sliding_window": 8, "query_pre_attn_scalar": 8,
                        "layer_types": ["sliding_attention", "full_attention"]},
        "vision_config": VISION, "mm_tokens_per_image": 4,
    }),
    "Gemma 3n": ("Gemma3nText", {
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "laurel_rank": 8,
        "num_kv_shared_layers": 0, "sliding_window": 8, "intermediate_size": 48,
        "layer_types": ["sliding_attention", "full_attention"], "activation_sparsity_pattern": [0.0, 0.0],
    }),
    "VaultGemma": ("VaultGemma", {"sliding_window": 8, "query_pre_attn_scalar": 8}),
    "NanoChat": ("NanoChat", {}),
    "Phi": ("Phi", {**HEADS, "resid_pdrop": 0.2, "embd_pdrop": 0.2, "attention_dropout": 0.2}),
    "Phi 3": ("Phi3", {"sliding_window": 8}),
    "Phi 3, LongRoPE": ("Phi3", {
        "original_max_position_embeddings": 128,
        "rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 1.0, **LONGROPE},
    }),
    "Granite": ("Granite", {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
                            "attention_multiplier": 0.2}),
    "Granite MoE": ("GraniteMoe", {**EXPERTS, "logits_scaling": 2.0}),
    "Granite MoE, shared": ("GraniteMoeShared", {**EXPERTS, "shared_intermediate_size": 24}),
    "Granite 4 hybrid": ("GraniteMoeHybrid", {
        **EXPERTS, **MAMBA, "shared_intermediate_size": 24, "layer_types": ["mamba", "attention"],
    }),
    "SmolLM3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "StarCoder 2": ("Starcoder2", {"sliding_window": 8, "residual_dropout": 0.2, "embedding_dropout": 0.2}),
    "GLM": ("Glm", {}),
    "GLM 4": ("Glm4", {}),
    "GLM 4 MoE": ("Glm4Moe", EXPERTS),
    "EXAONE 4": ("Exaone4", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "Seed-OSS": ("SeedOss", {"attention_dropout": 0.1, "residual_dropout": 0.1}),
    "Hunyuan": ("HunYuanDenseV1", {}),
    "ERNIE 4.5": ("Ernie4_5", {}),
    "Helium": ("Helium", {}),
    "BitNet": ("BitNet", {}),
    "Apertus": ("Apertus", {}),
    "Arcee": ("Arcee", {}),
    "DiffLlama": ("DiffLlama", {}),
    "DeepSeek V2": ("DeepseekV2", {**EXPERTS, **LATENT, **HEADS, "topk_method": "greedy"}),
    "DeepSeek V3": ("DeepseekV3", {**EXPERTS, **LATENT, **HEADS}),
    "MiniCPM 3": ("MiniCPM3", {**LATENT, **HEADS}),
    "dots.llm1": ("Dots1", EXPERTS),
    "GPT-2": ("GPT2", {**GPT, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}),
    "GPT-BigCode": ("GPTBigCode", GPT),
    "GPT-NeoX": ("GPTNeoX", {**HEADS, "rotary_pct": 0.5}),
    "GPT-Neo": ("GPTNeo", {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8,
                           "attention_types": [[["global", "local"], 1]], "initializer_range": 0.1,
                           "max_position_embeddings": 256}),
    "GPT-J": ("GPTJ", {**GPT, "rotary_dim": 4}),
    "CodeGen": ("CodeGen", {**GPT, "rotary_dim": 4}),
    "OPT": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.1, "init_std": 0.1}),
    "BioGPT": ("BioGpt", {"hidden_dropout_prob": 0.1}),
    "XGLM": ("XGLM", {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, "init_std": 0.1}),
    "BLOOM": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.1}),
    "MPT": ("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, "expansion_ratio": 2,
                    "initializer_range": 0.1}),
    "Falcon": ("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": ...}),
    "Falcon, ALiBi": ("Falcon", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True,
                                 "head_dim": ...}),
    "Persimmon": ("Persimmon", HEADS),
    "StableLM": ("StableLm", {}),
    "Nemotron": ("Nemotron", {}),
    "Cohere": ("Cohere", {"logit_scale": 0.25}),
    "Cohere 2": ("Cohere2", {"logit_scale": 0.25, "sliding_window": 8,
                             "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt-oss": ("GptOss", {**EXPERTS, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "Llama 4": ("Llama4Text", {
        **EXPERTS, "intermediate_size_mlp": 48, "attention_chunk_size": 8, "interleave_moe_layer_step": 2,
        "no_rope_layers": [1, 0],
    }),
    "ModernBERT decoder": ("ModernBertDecoder", {"local_attention": 8}),
    "Qwen3.5": ("Qwen3_5Text", {**LINEAR, "layer_types": ["linear_attention", "full_attention"]}),
    "Qwen3.5, images": ("Qwen3_5", {
        "text_config": {**BASE, **LINEAR, "layer_types": ["linear_attention", "full_attention"]},
        "vision_config": {"hidden_size": 32, "intermediate_size": 48, "depth": 1, "num_heads": 4, "out_hidden_size": 32,
                          "num_position_embeddings": 16},
    }),
    "Qwen3-Next": ("Qwen3Next", {**EXPERTS, **LINEAR, "layer_types": ["linear_attention", "full_attention"]}),
    "LFM2": ("Lfm2", {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_multiple_of": 8}),
    "LFM2 MoE": ("Lfm2Moe", {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "Bamba": ("Bamba", {**MAMBA, "attn_layer_indices": [1]}),
    "Jamba": ("Jamba", {
        **EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    }),
    "Falcon-H1": ("FalconH1", {**MAMBA, "mamba_d_ssm": 64}),
    "Falcon-Mamba": ("FalconMamba", {"state_size": 8, "time_step_rank": 4}),
    "Nemotron-H": ("NemotronH", {
        "layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8,
        "n_groups": 1, "chunk_size": 8,
    }),
    "OLMo hybrid": ("OlmoHybrid", {**LINEAR, "layer_types": ["linear_attention", "full_attention"]}),
    "MiniMax": ("MiniMax", {**EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 8}),
    "RecurrentGemma": ("RecurrentGemma", {
        "block_types": ["recurrent", "attention"], "attention_window_size": 8, "lru_width": 32,
        "w_init_variance_scale": 1.0,
    }),
    "Kimi Linear": ("KimiLinear", {
        **EXPERTS, **LATENT, **LINEAR, **HEADS, "layer_types": ["linear_attention", "full_attention"],
    }),
    "Zamba": ("Zamba", {"mamba_d_state": 8, "mamba_dt_rank": 4, "n_mamba_heads": 2, "use_mamba_kernels": False,
                        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4}),
    "Zamba 2": ("Zamba2", {"mamba_d_state": 8, "mamba_headdim": 16, "mamba_ngroups": 1, "chunk_size": 8,
                           "n_mamba_heads": 4, "use_mamba_kernels": False, "layers_block_type": ["mamba", "hybrid"],
                           "num_mem_blocks": 1}),
    "Mamba": ("Mamba", {"state_size": 8, "time_step_rank": 4}),
    "Mamba 2": ("Mamba2", {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}),
    "RWKV": ("Rwkv", {"attention_hidden_size": 32, "num_hidden_layers": 4, "rescale_every": 2}),
    "Doge": ("Doge", {}),
    "DBRX": ("Dbrx", {
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256,
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    }),
}  # fmt: skip


def make(name: str, folder: Path, tokenizer: Any) -> None:
    """Write the tiny model of a family, float32, with the tokenizer."""
    kind, settings = FAMILIES[name]
    special = {"vocab_size": len(tokenizer), **{f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in SPECIAL}}
    if "text_config" in settings:
        settings = {**settings, "text_config": {**settings["text_config"], **special}}
    values = {k: v for k, v in {**BASE, **special, **settings}.items() if v is not ...}
    config = getattr(transformers, f"{kind}Config")(**values)
    create: Any = transformers.AutoModelForCausalLM
    if "vision_config" in settings:
        create = transformers.AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():  # biases are zero at first: one that is left out would make no difference
            if parameter.ndim == 1:
                with torch.no_grad():
                    parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


SPECIAL = ("bos", "eos", "pad")
