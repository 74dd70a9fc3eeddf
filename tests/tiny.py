"""A tiny model with a real tokenizer and chat template, built in a second: for everything but quality."""

from __future__ import annotations

import torch

from augury.contract import Contract, Injection
from augury.lm import LanguageModel, load_model

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CORPUS = [
    "Layer: 2\n ? ? ? \nAnswer with 'Yes' or 'No' only. Is this about cooking? Yes yes No no YES NO",
    "What is the text about? Can you predict the previous 3 tokens that came before this? user assistant system",
    "Can you predict the next 4 tokens that come after this? The philosopher drank tea. Who is speaking here?",
]


def tiny_tokenizer():
    """A byte-level BPE tokenizer of about 500 tokens in which " ?", "Yes" and " No" are single tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[AddedToken(t, special=True) for t in ("<|pad|>", "<|start|>", "<|end|>")],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text in CORPUS for _ in range(4)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=TEMPLATE
    )


def tiny_lm(seed: int = 0, n_layers: int = 4, d_model: int = 48) -> LanguageModel:
    """A random Llama with the tiny tokenizer, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    return load_model(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)


def tiny_contract(lm: LanguageModel, layers: tuple[tuple[int, ...], ...] = ((2,),), **injection) -> Contract:
    """The contract of an oracle on `lm`."""
    identity = lm.identity
    return Contract(
        base_model=identity.name,
        d_model=identity.d_model,
        n_layers=identity.n_layers,
        tokenizer_hash=identity.tokenizer_hash,
        weights_fingerprint=identity.weights_fingerprint,
        chat_template_hash=identity.chat_template_hash,
        layers=layers,
        injection=Injection(**injection),
    )
