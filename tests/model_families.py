"""Tiny random causal language models of the families of transformers, for the tests that run each through every stage.

A family is a config class of transformers and the settings that make it tiny: two layers, or as many as show each of
its layer types. `make` writes one with a tokenizer to a folder, as a user's model lies on disk.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Family:
    """`config`: the name of the config class in transformers. `group`: how it mixes tokens, or what it is a case of."""

    config: str
    group: str
    settings: dict[str, Any]


# Shared settings. A standard deviation of 0.15 at width 64 keeps the size of the activations and makes logits far from
# uniform. Windows, chunks and rotary ranges are short enough that sequences of tens of tokens reach past them.
BASE = dict(hidden_size=64, num_hidden_layers=2)
INIT = dict(initializer_range=0.15)
DENSE = BASE | INIT | dict(num_attention_heads=4, intermediate_size=128, max_position_embeddings=256)
GQA = DENSE | dict(num_key_value_heads=2)
GQA_16 = GQA | dict(head_dim=16)
GPT = INIT | dict(n_embd=64, n_layer=2, n_head=4, n_positions=256)
NO_DROPOUT = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
LOCAL_GLOBAL = dict(sliding_window=8, layer_types=["sliding_attention", "full_attention"])
LINEAR_FULL = dict(layer_types=["linear_attention", "full_attention"])
CONV_FULL = dict(layer_types=["conv", "full_attention"])
MULTIPLIERS = dict(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.1)
TOP_2 = dict(num_experts_per_tok=2)
LOCAL_EXPERTS = GQA | TOP_2 | dict(num_local_experts=4)
EXPERTS = GQA | TOP_2 | dict(num_experts=4, moe_intermediate_size=32)
ROUTED_EXPERTS = TOP_2 | dict(
    n_routed_experts=4, n_shared_experts=1, moe_intermediate_size=32, n_group=2, topk_group=1, first_k_dense_replace=1
)  # fmt: skip
# Multi-head latent attention: low-rank queries and keys, a part of each head with rotary positions
LATENT = DENSE | dict(
    num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16
)  # fmt: skip
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16)
MAMBA_2 = dict(mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16, mamba_chunk_size=8)

# Rotary positions
LINEAR_ROPE = dict(rope_type="linear", rope_theta=1e4, factor=2.0)
# Sequences of more tokens than max_position_embeddings have other frequencies than shorter ones.
DYNAMIC_ROPE = dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)
# So do sequences of more than 128 tokens here, which are refused.
LONG_ROPE = dict(
    rope_type="longrope", rope_theta=1e4, factor=2.0, original_max_position_embeddings=128, short_factor=[1.0] * 8,
    long_factor=[1.0 + i for i in range(8)],
)  # fmt: skip
LLAMA_3_ROPE = dict(
    rope_type="llama3", rope_theta=1e4, factor=8.0, original_max_position_embeddings=32, low_freq_factor=1.0,
    high_freq_factor=4.0,
)  # fmt: skip
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)
# Queries grow with their positions from the 8th on.
MINISTRAL_3_ROPE = YARN | dict(factor=32.0, original_max_position_embeddings=8, llama_4_scaling_beta=0.1)

# Settings of one family, or of a few
GEMMA = GQA_16 | LOCAL_GLOBAL | dict(query_pre_attn_scalar=4)
# Caps low enough that a missing one changes every log-probability
CAPS = dict(attn_logit_softcapping=1.0, final_logit_softcapping=3.0)
NO_CAPS = dict(attn_logit_softcapping=None, final_logit_softcapping=None)
GEMMA_3N = GQA_16 | dict(
    num_hidden_layers=4, sliding_window=8, layer_types=2 * ["sliding_attention", "full_attention"],
    num_kv_shared_layers=2, laurel_rank=8, hidden_size_per_layer_input=8, vocab_size_per_layer_input=512,
    altup_num_inputs=2, final_logit_softcapping=3.0,
)  # fmt: skip
GEMMA_4 = GQA_16 | LOCAL_GLOBAL | dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=512)
LLAMA_4 = LOCAL_EXPERTS | dict(
    num_hidden_layers=4, head_dim=16, intermediate_size_mlp=128, attention_chunk_size=8, floor_scale=8,
    interleave_moe_layer_step=2,
)  # fmt: skip
MODERN_BERT = DENSE | dict(
    layer_types=["sliding_attention", "full_attention"], local_attention=16, cls_token_id=0, sep_token_id=1
)  # fmt: skip
OPT = BASE | dict(
    num_attention_heads=4, ffn_dim=128, max_position_embeddings=256, word_embed_proj_dim=64, init_std=0.15
)  # fmt: skip
XGLM = dict(
    d_model=64, num_layers=2, attention_heads=4, ffn_dim=128, max_position_embeddings=256, init_std=0.15, dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip
FALCON = BASE | INIT | dict(num_attention_heads=4, max_position_embeddings=256)
ERNIE_MOE = GQA | dict(
    moe_num_experts=4, moe_k=2, moe_num_shared_experts=1, moe_intermediate_size=32, moe_layer_start_index=1,
    moe_layer_end_index=1,
)  # fmt: skip
DBRX = INIT | dict(
    d_model=64, n_heads=4, n_layers=2, max_seq_len=256, attn_config=dict(kv_n_heads=2, rope_theta=1e4, clip_qkv=2.0),
    ffn_config=dict(ffn_hidden_size=64, moe_num_experts=4, moe_top_k=2),
)  # fmt: skip
JETMOE = BASE | INIT | TOP_2 | dict(
    num_key_value_heads=2, kv_channels=16, intermediate_size=64, num_local_experts=4, max_position_embeddings=256
)  # fmt: skip
QWEN_3_5 = GQA_16 | LINEAR_FULL | DELTA
QWEN_3_5_EXPERTS = TOP_2 | dict(num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=32)
QWEN_3_5_MOE = {key: value for key, value in QWEN_3_5.items() if key != "intermediate_size"} | QWEN_3_5_EXPERTS
GRANITE_HYBRID = LOCAL_EXPERTS | MULTIPLIERS | LINEAR_FULL | MAMBA_2 | dict(shared_intermediate_size=32)
JAMBA = GQA | TOP_2 | dict(num_experts=4, attn_layer_period=2, attn_layer_offset=1, mamba_dt_rank=4)
NEMOTRON_H = INIT | TOP_2 | dict(
    hidden_size=64, intermediate_size=128, max_position_embeddings=256, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, ssm_state_size=16, mamba_num_heads=4, mamba_head_dim=32, n_groups=2, chunk_size=8, n_routed_experts=4,
    moe_intermediate_size=32, moe_shared_expert_intermediate_size=32,
)  # fmt: skip
RECURRENT_GEMMA = BASE | dict(
    num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, attention_window_size=8,
    w_init_variance_scale=1.0, logits_soft_cap=5.0,
)  # fmt: skip
ZAMBA = DENSE | dict(
    num_hidden_layers=3, layers_block_type=["linear_attention", "hybrid", "hybrid"], num_key_value_heads=4,
    mamba_d_state=16,
)  # fmt: skip
KIMI = LATENT | TOP_2 | LINEAR_FULL | dict(
    num_local_experts=4, n_shared_experts=1, moe_intermediate_size=32, mlp_layer_types=["dense", "sparse"],
    linear_head_dim=16, linear_num_heads=4,
)  # fmt: skip
ZAYA = BASE | INIT | dict(
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256, num_experts=4,
    num_experts_per_tok=1, moe_intermediate_size=32, router_hidden_size=16,
)  # fmt: skip
# Steps so long that a token is seen in the state of many tokens after it
MAMBA = BASE | INIT | dict(time_step_min=0.1, time_step_max=1.0)
SIGLIP = BASE | dict(num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=16)
GEMMA_4_VISION = BASE | dict(
    num_attention_heads=4, num_key_value_heads=4, head_dim=16, intermediate_size=128, position_embedding_size=64
)  # fmt: skip
LLAMA_4_VISION = BASE | dict(
    num_attention_heads=4, intermediate_size=256, image_size=32, patch_size=16, vision_output_dim=64,
    projector_input_dim=64, projector_output_dim=64,
)  # fmt: skip
QWEN_3_5_VISION = dict(
    depth=1, hidden_size=64, num_heads=4, intermediate_size=128, out_hidden_size=64, num_position_embeddings=16
)  # fmt: skip

FAMILIES = {
    # Attention over all earlier tokens
    "llama": Family("LlamaConfig", "attention", GQA),
    "llama-bias": Family("LlamaConfig", "attention", GQA | dict(attention_bias=True, mlp_bias=True)),
    "llama-tied": Family("LlamaConfig", "attention", GQA | dict(tie_word_embeddings=True)),
    "mistral": Family("MistralConfig", "attention", GQA | dict(sliding_window=None)),
    "qwen2": Family("Qwen2Config", "attention", GQA),
    "qwen3": Family("Qwen3Config", "attention", GQA_16),
    "olmo": Family("OlmoConfig", "attention", GQA | dict(clip_qkv=1.0)),
    "olmo2": Family("Olmo2Config", "attention", GQA),
    "gemma": Family("GemmaConfig", "attention", GQA_16),
    "phi": Family("PhiConfig", "attention", GQA),
    "phi3": Family("Phi3Config", "attention", GQA),
    "granite": Family("GraniteConfig", "attention", GQA | MULTIPLIERS),
    "smollm3": Family("SmolLM3Config", "attention", GQA | dict(no_rope_layers=[1, 0])),
    "starcoder2": Family("Starcoder2Config", "attention", GQA),
    "glm": Family("GlmConfig", "attention", GQA_16),
    "glm4": Family("Glm4Config", "attention", GQA_16),
    "seed-oss": Family("SeedOssConfig", "attention", GQA_16 | dict(attention_dropout=0.0, residual_dropout=0.0)),
    "hunyuan": Family("HunYuanDenseV1Config", "attention", GQA_16),
    "ernie4.5": Family("Ernie4_5Config", "attention", GQA_16),
    "helium": Family("HeliumConfig", "attention", GQA_16),
    "bitnet": Family("BitNetConfig", "attention", GQA),
    "apertus": Family("ApertusConfig", "attention", GQA | dict(rope_parameters=LLAMA_3_ROPE)),
    "arcee": Family("ArceeConfig", "attention", GQA_16),
    "diffllama": Family("DiffLlamaConfig", "attention", GQA_16),
    "minicpm3": Family("MiniCPM3Config", "attention", LATENT),
    "persimmon": Family("PersimmonConfig", "attention", DENSE),
    "stablelm": Family("StableLmConfig", "attention", GQA),
    "stablelm-parallel": Family(
        "StableLmConfig", "attention", GQA | dict(use_parallel_residual=True, qk_layernorm=True)
    ),
    "nemotron": Family("NemotronConfig", "attention", GQA_16),
    "gpt2": Family("GPT2Config", "attention", GPT | NO_DROPOUT),
    "gpt-bigcode": Family("GPTBigCodeConfig", "attention", GPT | NO_DROPOUT),
    "gpt-neox": Family("GPTNeoXConfig", "attention", DENSE),
    "opt": Family("OPTConfig", "attention", OPT | dict(dropout=0.0)),
    "opt-350m": Family(
        "OPTConfig", "attention", OPT | dict(dropout=0.0, do_layer_norm_before=False, word_embed_proj_dim=32)
    ),
    "biogpt": Family(
        "BioGptConfig", "attention", DENSE | dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ),
    "ctrl": Family("CTRLConfig", "attention", GPT | dict(dff=128, resid_pdrop=0.0, embd_pdrop=0.0)),
    # Rotary positions that are scaled
    "llama-linear": Family("LlamaConfig", "rope", GQA | dict(rope_parameters=LINEAR_ROPE)),
    "llama-llama3": Family("LlamaConfig", "rope", GQA | dict(rope_parameters=LLAMA_3_ROPE)),
    "llama-yarn": Family("LlamaConfig", "rope", GQA | dict(rope_parameters=YARN)),
    "llama-longrope": Family("LlamaConfig", "rope", GQA | dict(rope_parameters=LONG_ROPE)),
    "ministral3": Family("Ministral3Config", "rope", GQA_16 | dict(rope_parameters=MINISTRAL_3_ROPE)),
    "phi3-longrope": Family(
        "Phi3Config", "rope", GQA | dict(rope_parameters=LONG_ROPE, original_max_position_embeddings=128)
    ),
    "llama-dynamic": Family("LlamaConfig", "rope", GQA | dict(rope_parameters=DYNAMIC_ROPE)),
    # Attention over a window of earlier tokens
    "mistral-window": Family("MistralConfig", "window", GQA | dict(sliding_window=8)),
    "ministral": Family("MinistralConfig", "window", GQA_16 | LOCAL_GLOBAL),
    "qwen2-window": Family("Qwen2Config", "window", GQA | LOCAL_GLOBAL | dict(use_sliding_window=True)),
    "olmo3": Family("Olmo3Config", "window", GQA | LOCAL_GLOBAL),
    "exaone4": Family("Exaone4Config", "window", GQA | LOCAL_GLOBAL),
    "gemma3-text": Family("Gemma3TextConfig", "window", GEMMA),
    "gemma4-text": Family("Gemma4TextConfig", "window", GEMMA_4),
    "granite-swa": Family("GraniteSWAConfig", "window", GQA | LOCAL_GLOBAL | MULTIPLIERS),
    "modernbert-decoder": Family("ModernBertDecoderConfig", "window", MODERN_BERT),
    # Logits of attention or of the head that are scaled or capped
    "gemma2": Family("Gemma2Config", "logits", GEMMA | CAPS),
    "gemma2-no-caps": Family("Gemma2Config", "window", GEMMA | NO_CAPS),
    "vaultgemma": Family("VaultGemmaConfig", "logits", GEMMA | CAPS),
    "nanochat": Family("NanoChatConfig", "logits", GQA | dict(final_logit_softcapping=3.0)),
    "cohere": Family("CohereConfig", "logits", GQA | dict(logit_scale=0.5)),
    "cohere-qk-norm": Family("CohereConfig", "logits", GQA | dict(logit_scale=0.5, use_qk_norm=True)),
    "cohere2": Family("Cohere2Config", "logits", GQA | LOCAL_GLOBAL | dict(logit_scale=0.5)),
    "gemma3n-text": Family("Gemma3nTextConfig", "logits", GEMMA_3N),
    # Attention of the model's own, or with an additive mask or sinks
    "gpt-oss": Family("GptOssConfig", "own-attention", LOCAL_EXPERTS | LOCAL_GLOBAL | dict(head_dim=16)),
    "llama4-text": Family("Llama4TextConfig", "own-attention", LLAMA_4),
    "bloom": Family("BloomConfig", "own-attention", dict(n_layer=2, n_head=4) | INIT),
    "codegen": Family("CodeGenConfig", "own-attention", GPT | dict(rotary_dim=8)),
    "xglm": Family("XGLMConfig", "own-attention", XGLM),
    "doge": Family("DogeConfig", "own-attention", GQA | dict(keep_window_size=8)),
    "doge-moe": Family("DogeConfig", "own-attention", GQA | TOP_2 | dict(is_moe=True, num_experts=16)),
    "gptj": Family("GPTJConfig", "own-attention", GPT | dict(rotary_dim=8)),
    "gpt-neo": Family(
        "GPTNeoConfig", "own-attention", DENSE | dict(attention_types=[[["global", "local"], 1]], window_size=8)
    ),
    "openai-gpt": Family("OpenAIGPTConfig", "own-attention", GPT | NO_DROPOUT),
    "falcon": Family("FalconConfig", "own-attention", FALCON),
    "falcon-new": Family("FalconConfig", "own-attention", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2)),
    "falcon-alibi": Family("FalconConfig", "own-attention", FALCON | dict(alibi=True, multi_query=False)),
    "mpt": Family("MptConfig", "own-attention", dict(d_model=64, n_heads=4, n_layers=2) | INIT),
    # Dropout of the model's own
    "gpt2-dropout": Family("GPT2Config", "dropout", GPT),
    "opt-dropout": Family("OPTConfig", "dropout", OPT),
    "phi-dropout": Family("PhiConfig", "dropout", GQA | dict(resid_pdrop=0.1, embd_pdrop=0.1)),
    "llama-dropout": Family("LlamaConfig", "dropout", GQA | dict(attention_dropout=0.1)),
    "seed-oss-dropout": Family("SeedOssConfig", "dropout", GQA_16),
    # Mixtures of experts
    "mixtral": Family("MixtralConfig", "moe", LOCAL_EXPERTS),
    "mixtral-jitter": Family("MixtralConfig", "jitter", LOCAL_EXPERTS | dict(router_jitter_noise=0.1)),
    "mixtral-router-logits": Family("MixtralConfig", "moe", LOCAL_EXPERTS | dict(output_router_logits=True)),
    "phimoe": Family("PhimoeConfig", "jitter", LOCAL_EXPERTS | dict(router_jitter_noise=0.1)),
    "olmoe": Family("OlmoeConfig", "moe", GQA | TOP_2 | dict(num_experts=4)),
    "flex-olmo": Family("FlexOlmoConfig", "moe", GQA | TOP_2 | dict(num_experts=4)),
    "qwen2-moe": Family("Qwen2MoeConfig", "moe", EXPERTS | dict(shared_expert_intermediate_size=32)),
    "qwen3-moe": Family("Qwen3MoeConfig", "moe", EXPERTS),
    "granitemoe": Family("GraniteMoeConfig", "moe", LOCAL_EXPERTS | MULTIPLIERS),
    "granitemoe-shared": Family("GraniteMoeSharedConfig", "moe", LOCAL_EXPERTS | dict(shared_intermediate_size=32)),
    "glm4-moe": Family("Glm4MoeConfig", "moe", GQA | ROUTED_EXPERTS),
    "ernie4.5-moe": Family("Ernie4_5_MoeConfig", "moe", ERNIE_MOE),
    "exaone-moe": Family("ExaoneMoeConfig", "moe", EXPERTS | LOCAL_GLOBAL | dict(mlp_layer_types=["dense", "sparse"])),
    "hunyuan-moe": Family("HunYuanMoEV1Config", "moe", GQA_16 | dict(num_experts=4, moe_topk=2)),
    "deepseek-v2": Family(
        "DeepseekV2Config", "moe", LATENT | ROUTED_EXPERTS | dict(topk_method="group_limited_greedy")
    ),
    "deepseek-v3": Family("DeepseekV3Config", "moe", LATENT | ROUTED_EXPERTS),
    "dots1": Family("Dots1Config", "moe", GQA | ROUTED_EXPERTS),
    "minimax-m2": Family("MiniMaxM2Config", "moe", LOCAL_EXPERTS | dict(head_dim=16)),
    "dbrx": Family("DbrxConfig", "moe", DBRX),
    "jetmoe": Family("JetMoeConfig", "moe", JETMOE),
    # Layers with a state beside layers of attention
    "qwen3.5-text": Family("Qwen3_5TextConfig", "hybrid", QWEN_3_5),
    "qwen3.5-moe-text": Family("Qwen3_5MoeTextConfig", "hybrid", QWEN_3_5_MOE),
    "qwen3-next": Family("Qwen3NextConfig", "hybrid", QWEN_3_5_MOE | dict(intermediate_size=128)),
    "lfm2": Family("Lfm2Config", "hybrid", GQA | CONV_FULL),
    "lfm2-moe": Family("Lfm2MoeConfig", "hybrid", EXPERTS | CONV_FULL | dict(num_dense_layers=1)),
    "granitemoe-hybrid": Family("GraniteMoeHybridConfig", "hybrid", GRANITE_HYBRID),
    "bamba": Family("BambaConfig", "hybrid", GQA | MAMBA_2 | dict(attn_layer_indices=[1])),
    "jamba": Family("JambaConfig", "hybrid", JAMBA),
    "falcon-h1": Family("FalconH1Config", "hybrid", GQA | MAMBA_2 | dict(mamba_d_ssm=128)),
    "nemotron-h": Family("NemotronHConfig", "hybrid", NEMOTRON_H),
    "olmo-hybrid": Family("OlmoHybridConfig", "hybrid", GQA | LINEAR_FULL | DELTA),
    "minimax": Family("MiniMaxConfig", "hybrid", LOCAL_EXPERTS | LINEAR_FULL | dict(block_size=8)),
    "recurrent-gemma": Family("RecurrentGemmaConfig", "hybrid", RECURRENT_GEMMA),
    "zamba": Family("ZambaConfig", "hybrid", ZAMBA),
    "zamba2": Family("Zamba2Config", "hybrid", ZAMBA | dict(n_mamba_heads=4, chunk_size=8)),
    "kimi-linear": Family("KimiLinearConfig", "hybrid", KIMI),
    "zaya": Family("ZayaConfig", "hybrid", ZAYA),
    # Layers with a state only
    "mamba": Family("MambaConfig", "recurrent", MAMBA | dict(state_size=8)),
    "falcon-mamba": Family("FalconMambaConfig", "recurrent", MAMBA | dict(state_size=8)),
    "mamba2": Family(
        "Mamba2Config", "recurrent", MAMBA | dict(num_heads=4, head_dim=32, n_groups=2, state_size=16, chunk_size=8)
    ),
    "rwkv": Family("RwkvConfig", "recurrent", BASE | dict(intermediate_size=128, context_length=256, rescale_every=1)),
    "xlstm": Family("xLSTMConfig", "recurrent", BASE | dict(num_heads=4)),
    # A text model within a model of text and images
    "gemma3": Family("Gemma3Config", "composite", dict(text_config=GEMMA, vision_config=SIGLIP)),
    "qwen3.5": Family("Qwen3_5Config", "composite", dict(text_config=QWEN_3_5, vision_config=QWEN_3_5_VISION)),
    "gemma4": Family("Gemma4Config", "composite", dict(text_config=GEMMA_4, vision_config=GEMMA_4_VISION)),
    "llama4": Family("Llama4Config", "composite", dict(text_config=LLAMA_4, vision_config=LLAMA_4_VISION)),
}
# What cannot be built here, and why
ABSENT = {"gemma3n": "Gemma3nConfig has a vision tower of the package timm"}


def make(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> None:
    """Write the family's random model (float32) and the tokenizer to the folder; its vocabulary is the tokenizer's.

    A composite family is written with its vision tower, as such checkpoints are.

    Parameters that transformers sets to a constant (biases, norms) get noise, since a fault in them would be invisible.
    The same arguments write the same files. PyTorch's global generator is not changed.
    """
    family = FAMILIES[name]
    vocabulary = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vocabulary["vocab_size"] = len(tokenizer)
    settings, auto = copy.deepcopy(family.settings), AutoModelForCausalLM  # a config writes into what it is given
    settings.get("text_config", settings).update(vocabulary)
    if "text_config" in settings:
        auto = AutoModelForImageTextToText
    config = getattr(transformers, family.config)(**settings)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if (parameter == parameter.flatten()[0]).all():
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
