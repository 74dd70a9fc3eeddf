"""Which fine-tune a name stands for, and which two are one."""

from __future__ import annotations

import json
import shutil

import pytest

from augury.audit.subjects import check_alike, check_apart, peer_of, subject_of
from augury.errors import ContractError, FormatError, InputError, NotFoundError
from augury.lm import load_model
from tests.unit.audit.conftest import adapter


def test_one_fine_tune_under_two_names_is_refused(zoo, tmp_path):
    again = adapter(load_model(str(zoo.base)), tmp_path / "again", 20, 0.1)
    with pytest.raises(InputError, match="named twice"):
        check_apart([*zoo.audit().subjects, peer_of(str(again), str(zoo.base))])
    check_apart(zoo.audit().subjects)


def test_another_vocabulary_or_tokenizer_is_refused(zoo):
    known = load_model(str(zoo.base)).identity
    with pytest.raises(ContractError, match="its vocabulary is 7"):
        check_alike(known, known.model_copy(update={"vocab_size": 7}))
    with pytest.raises(ContractError, match="reads other token ids"):
        check_alike(known, known.model_copy(update={"tokenizer_hash": "0"}))
    check_alike(known, known.model_copy(update={"weights_fingerprint": "0", "name": "x"}))


def test_an_adapter_on_an_adapter_is_refused(zoo):
    with pytest.raises(InputError, match="Two adapters"):
        subject_of("target", str(zoo.adapters[0]), str(zoo.base), zoo.adapters[1])
    assert subject_of("target", str(zoo.base), str(zoo.base), zoo.adapters[1]).adapter == zoo.adapters[1]


def test_what_an_adapter_is_put_on_and_how_tell_fine_tunes_apart(zoo, tmp_path):
    base, (own, *_) = str(zoo.base), zoo.adapters
    on_base, named, on_whole = (subject_of("target", *rest) for rest in (
        (str(own), base), (base, base, own), (str(zoo.whole), base, own)
    ))  # fmt: skip
    assert on_base == named and on_base.digest == named.digest != on_whole.digest
    assert on_whole.name == f"{zoo.whole} with {own}" and on_base.name == str(own)
    stronger = shutil.copytree(own, tmp_path / "stronger")
    config = json.loads((stronger / "adapter_config.json").read_text())
    (stronger / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    check_apart([on_base, peer_of(str(stronger), base)])
    (stronger / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "elsewhere"}))
    with pytest.raises(InputError, match="named twice"):
        check_apart([on_base, peer_of(str(stronger), base)])


def test_a_fine_tune_that_cannot_be_read_is_told_by_its_name(zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(zoo.adapters[0], tmp_path / "zoo" / "mine")
    for name in ("./mine", "zoo/mien", "~/no-such-folder"):
        with pytest.raises(NotFoundError, match="no fine-tune"):
            subject_of("target", name, str(zoo.base))
    assert subject_of("target", "somebody/fine-tune", str(zoo.base)).digest is None  # may be on the hub
    (tmp_path / "zoo/mine/adapter_model.safetensors").rename(tmp_path / "zoo/mine/adapter_model.bin")
    with pytest.raises(FormatError, match="safetensors"):
        subject_of("target", "zoo/mine", str(zoo.base))
