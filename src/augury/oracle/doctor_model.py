"""What reading a model rests on, each tried on the model itself: blocks, capture, injection, padding, cache."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from augury.activations import capture_vectors
from augury.contract import Injection
from augury.lm import LanguageModel
from augury.lm.adapters import adapters_on
from augury.lm.batch import left_pad
from augury.lm.hooks import on_output
from augury.lm.probe import padding_leak
from augury.oracle.inject import injecting

LENGTH = 12  # tokens of the input that is tried
STEPS = 4  # of them decoded one by one

Verdict = tuple[bool, str]


def sample_ids(lm: LanguageModel, length: int = LENGTH, start: int = 3) -> list[int]:
    """Token ids that any model takes."""
    return [(7 * i + start) % min(lm.vocab_size, 997) for i in range(length)]


def id_tensor(lm: LanguageModel, ids: list[int]) -> Tensor:
    return torch.tensor([ids], device=lm.device)


def _tolerance(lm: LanguageModel) -> float:
    """What float noise may make, relative to the largest value."""
    return 1e-4 if lm.dtype in (torch.float32, torch.float64) else 5e-2


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1e-9))


def own_hidden_states(lm: LanguageModel, ids: list[int]) -> tuple[Tensor, ...]:
    with torch.no_grad(), adapters_on(lm.model, lm.target_adapters):
        out = lm.decoder.trunk(input_ids=id_tensor(lm, ids), use_cache=False, output_hidden_states=True)
    return out.hidden_states


def try_blocks(lm: LanguageModel) -> Verdict:
    """Every block runs once, in order, and hands on the residual stream."""
    order: list[int] = []
    shapes: set[tuple[int, ...]] = set()

    def seen(index: int) -> Callable[[Tensor], None]:
        def note(hidden: Tensor) -> None:
            order.append(index)
            shapes.add(tuple(hidden.shape))

        return note

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for index, block in enumerate(lm.blocks):
            stack.enter_context(on_output(block, seen(index)))
        lm.logits(keep=1, input_ids=id_tensor(lm, sample_ids(lm)))
    if order != list(range(lm.n_layers)):
        ran = f"{len(order)} runs: {order[:12]}" if order else "none of them ran"
        return False, f"{lm.decoder.path} has {lm.n_layers} blocks, which do not run once each in order ({ran})"
    if shapes != {(1, LENGTH, lm.d_model)}:
        return False, f"blocks return {sorted(shapes)}, not [1, {LENGTH}, {lm.d_model}]"
    return True, f"{lm.decoder.path}: {lm.n_layers} blocks of width {lm.d_model}"


def try_capture(lm: LanguageModel) -> Verdict:
    """Layer k is hidden_states[k+1], for every block but the last (whose entry is after the final norm)."""
    ids = sample_ids(lm)
    own = own_hidden_states(lm, ids)
    if len(own) != lm.n_layers + 1:
        return False, f"the model names {len(own)} hidden states, not {lm.n_layers + 1}"
    captured = capture_vectors(lm, [ids], range(lm.n_layers), [range(LENGTH)])[0]
    gaps = [_relative(captured[k], own[k + 1][0].cpu()) for k in range(lm.n_layers - 1)]
    worst = max(range(len(gaps)), key=gaps.__getitem__, default=0)
    largest = gaps[worst] if gaps else 0.0
    ok = largest <= _tolerance(lm)
    detail = f"layers 0 to {lm.n_layers - 2} against the model's own hidden states: largest difference {largest:.1e}"
    return ok, detail if ok else f"{detail}, at layer {worst}"


def try_injection(lm: LanguageModel) -> Verdict:
    """Only slot rows change, they change as the formula says, and the logits move."""
    block = min(1, lm.n_layers - 1)
    slots = [3, 4, 7]
    vectors = capture_vectors(lm, [sample_ids(lm, start=11)], [lm.n_layers // 2], [slots])[0][0]
    plain, plain_logits = _run_injected(lm, block, [], vectors)
    filled, logits = _run_injected(lm, block, slots, vectors)
    others = [i for i in range(LENGTH) if i not in slots]
    if not torch.equal(plain[others], filled[others]):
        return False, f"rows that are no slots changed at block {block}"
    v = vectors.to(plain.device).float()
    rows = plain[slots].float()
    wanted = rows + rows.norm(dim=-1, keepdim=True) * v / v.norm(dim=-1, keepdim=True)
    gap, moved = _relative(filled[slots], wanted), float((logits - plain_logits).abs().max())
    if gap > _tolerance(lm):
        return False, f"slot rows are not h + ||h|| v / ||v||: {gap:.1e} off"
    return moved > 0, f"at block {block} only the {len(slots)} slot rows changed; logits move by up to {moved:.2f}"


def _run_injected(lm: LanguageModel, block: int, slots: list[int], vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The block's output `[seq, d_model]` after injection, and the last logits `[vocab]`."""
    seen: list[Tensor] = []
    injection = Injection(block=block)
    with (
        torch.no_grad(),
        adapters_on(lm.model, lm.target_adapters),
        injecting(lm, injection, [slots], [vectors]),
        on_output(lm.blocks[block], lambda hidden: seen.append(hidden.detach()[0].clone())),
    ):
        logits = lm.logits(keep=1, input_ids=id_tensor(lm, sample_ids(lm)))
    return seen[0], logits[0, -1].float()


def try_padding(lm: LanguageModel) -> Verdict:
    """A batch of unequal lengths gives what its items give alone, however that is brought about."""
    leak = padding_leak(lm)
    texts = [sample_ids(lm, 6), sample_ids(lm, LENGTH, start=5)]
    rows = [range(len(text)) for text in texts]
    together = capture_vectors(lm, texts, [lm.n_layers - 1], rows)
    alone = [capture_vectors(lm, [text], [lm.n_layers - 1], [row])[0] for text, row in zip(texts, rows, strict=True)]
    gap = max(_relative(a, b) for a, b in zip(together, alone, strict=True))
    how = "batches may mix lengths" if lm.pads_cleanly else "it leaks into the state: batches are made of equal lengths"
    return gap <= _tolerance(lm), f"padding moves real positions by {leak:.1e} ({how}); batch against single {gap:.1e}"


def try_cache(lm: LanguageModel) -> Verdict:
    """Tokens fed one by one into the cache give the logits that one pass over all gives."""
    batch = left_pad([sample_ids(lm)], lm.pad_id, lm.device)
    ids, mask, positions = batch.input_ids, batch.attention_mask, batch.position_ids
    with torch.no_grad(), adapters_on(lm.model, lm.target_adapters):
        whole = lm.logits(keep=STEPS, input_ids=ids, attention_mask=mask, position_ids=positions)
        cache, steps, start = None, [], 0
        for stop in range(LENGTH - STEPS + 1, LENGTH + 1):
            out = lm.model(
                input_ids=ids[:, start:stop],
                attention_mask=mask[:, :stop],
                position_ids=positions[:, start:stop],
                past_key_values=cache,
                use_cache=True,
            )
            cache, start = out.past_key_values, stop
            steps.append(out.logits[:, -1])
    gap = _relative(torch.stack(steps, 1), whole)
    return gap <= _tolerance(lm), f"{STEPS} cached steps against one pass: logits differ by {gap:.1e} of the largest"
