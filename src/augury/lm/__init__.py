"""Language models: the only room that knows transformers and peft."""

from augury.lm.chat import Message, Span, Transcript, render_chat, transcript_of
from augury.lm.generate import Sampling, generate
from augury.lm.load import LanguageModel, load_model
from augury.lm.many import generate_many

__all__ = [
    "LanguageModel",
    "Message",
    "Sampling",
    "Span",
    "Transcript",
    "generate",
    "generate_many",
    "load_model",
    "render_chat",
    "transcript_of",
]
