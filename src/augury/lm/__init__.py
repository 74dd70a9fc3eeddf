"""Language models: the only room that knows transformers and peft."""

from augury.lm.chat import Message, Span, Transcript, render_chat, transcript_of
from augury.lm.generate import Sampling, generate, generate_batch
from augury.lm.load import LanguageModel, load_model

__all__ = [
    "LanguageModel",
    "Message",
    "Sampling",
    "Span",
    "Transcript",
    "generate",
    "generate_batch",
    "load_model",
    "render_chat",
    "transcript_of",
]
