"""Tiny random models of many families, made from configurations: no download, no tokenizer.

They are built to be nasty where finding blocks by structure could go wrong: the multimodal wrapper's vision tower has
as many layers as its text decoder, and the mixture of experts has as many experts as blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.bamba import modeling_bamba

from augury.lm import LanguageModel, load_model

VOCAB = 160
WIDTH = 32
N_LAYERS = 4

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED: dict[str, Any] = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8}
_LINEAR: dict[str, Any] = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}


class Leaky(nn.Module):
    """A block whose state runs over every column, padding included, as some recurrent blocks do."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        width = torch.arange(1, hidden_states.shape[1] + 1, device=hidden_states.device)
        return self.block(hidden_states + hidden_states.cumsum(1) / width[:, None], *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_GROUPED))


def _leaky() -> Any:
    model = _llama()
    model.model.layers[1] = Leaky(model.model.layers[1])
    return model


def _mistral() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=6))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_GROUPED))


def _gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**_GROUPED, sliding_window=6, query_pre_attn_scalar=8))


_GEMMA3: dict[str, Any] = {**_GROUPED, "sliding_window": 6, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2}


def _gemma3_text() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return Gemma3ForCausalLM(Gemma3TextConfig(**_GEMMA3))


def _gemma3_wrapper() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=_GEMMA3, vision_config=vision, mm_tokens_per_image=4, image_token_index=VOCAB - 1,
        boi_token_index=VOCAB - 2, eoi_token_index=VOCAB - 3, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config)


def _gpt_neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**_COMMON))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB, n_embd=WIDTH, n_layer=N_LAYERS, n_head=4, n_positions=128, initializer_range=0.15,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def _mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**_GROUPED, num_local_experts=N_LAYERS, num_experts_per_tok=2))


def _qwen3_moe() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(**_GROUPED, num_experts=N_LAYERS, num_experts_per_tok=2, moe_intermediate_size=24)
    return Qwen3MoeForCausalLM(config)


def _qwen3_next() -> Any:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    config = Qwen3NextConfig(
        **_GROUPED, **_LINEAR, num_experts=N_LAYERS, num_experts_per_tok=2, moe_intermediate_size=24,
        shared_expert_intermediate_size=24, decoder_sparse_step=2,
    )  # fmt: skip
    return Qwen3NextForCausalLM(config)


def _qwen3_5() -> Any:
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**_GROUPED, **_LINEAR))


def _bamba() -> Any:
    from transformers import BambaConfig, BambaForCausalLM

    config = BambaConfig(
        **{k: v for k, v in _GROUPED.items() if k != "head_dim"}, attn_layer_indices=[1, 3], mamba_n_heads=8,
        mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8, mamba_d_conv=4, mamba_expand=2, mamba_chunk_size=8,
    )  # fmt: skip
    return BambaForCausalLM(config)


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3_text,
    "gemma3_wrapper": _gemma3_wrapper,
    "gpt_neox": _gpt_neox,
    "gpt2": _gpt2,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "qwen3_next": _qwen3_next,
    "qwen3_5": _qwen3_5,
    "bamba": _bamba,
}
LEAKY = {"leaky": _leaky}  # reads like the others, but has no cache to decode with
NEW = ("qwen3_5", "bamba")  # the oldest transformers lack the one, and have no plain cache for the other
if not hasattr(transformers, "Qwen3_5ForCausalLM"):
    del FAMILIES["qwen3_5"]
if hasattr(modeling_bamba, "HybridMambaAttentionDynamicCache"):
    LEAKY["bamba"] = FAMILIES.pop("bamba")

LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "bias": "none",
}
_WIRED = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "out_proj",
    "in_proj_qkv",
    "in_proj_qkvz",
    "down_proj",
    "up_proj",
    "gate_proj",
)
_OLD = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "c_attn", "c_proj", "c_fc")


def build(family: str) -> LanguageModel:
    """A tiny random model of `family`, float32, in eval mode, the same on every call."""
    torch.manual_seed(1234)
    model = {**FAMILIES, **LEAKY}[family]()
    _unlike_at_start(model)
    return load_model(model.float().eval())


def _unlike_at_start(model: nn.Module) -> None:
    """Norm weights and biases are ones and zeros in a fresh model, which hides mistakes: shake them."""
    generator = torch.Generator().manual_seed(4321)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def lora_config(lm: LanguageModel) -> dict[str, Any]:
    """A LoRA configuration on the linear layers of the text decoder (not the vision tower's)."""
    names = [
        f"{lm.decoder.path}.{name}"
        for name, module in lm.model.get_submodule(lm.decoder.path).named_modules()
        if name.rpartition(".")[2] in (*_WIRED, *_OLD) and isinstance(getattr(module, "weight", None), nn.Parameter)
        and getattr(module.weight, "ndim", 0) == 2
    ]  # fmt: skip
    return {**LORA, "target_modules": names, "fan_in_fan_out": bool(names) and "c_attn" in " ".join(names)}


def add_random_adapter(lm: LanguageModel, name: str = "oracle", seed: int = 7) -> dict[str, Any]:
    """Put a LoRA with no zero in it on the model, off and frozen; its configuration is returned."""
    from augury.lm.adapters import adapter_parameters, add_adapter

    config = lora_config(lm)
    add_adapter(lm, config, name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(lm.model, name).values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return config


def ids(length: int, seed: int = 0) -> list[int]:
    """Random token ids, none of them special."""
    return torch.randint(3, VOCAB - 8, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
