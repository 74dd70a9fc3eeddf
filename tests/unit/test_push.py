"""An oracle published and fetched again, with the hub's own client and a hub on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from augury.contract import TrainedOn
from augury.errors import (
    AccessError,
    AuguryError,
    ContractError,
    FormatError,
    InputError,
    ModelError,
    NetworkError,
    NotFoundError,
)
from augury.lm import hub as lm_hub
from augury.lm.adapters import adapter_parameters, add_adapter
from augury.oracle import load_oracle
from augury.oracle.front_matter import front_matter
from augury.oracle.parcel import Parcel, pack
from augury.oracle.pull import pull
from augury.oracle.push import Pushed, message, push
from augury.oracle.save import save_oracle
from tests.families import LORA
from tests.hub_server import READER, UNKNOWN, ScriptedHub, folder_bytes, serving, use
from tests.tiny import tiny_contract, tiny_lm

REPOSITORY, BASE = "me/my-oracle", "org/base"
CONFIG: dict[str, Any] = {**LORA, "target_modules": ["q_proj", "down_proj"]}
FIGURES = {"yes/no AUC, all, at 10 activations": {"oracle": [0.9, 0.8, 0.95], "shuffled": [0.5, 0.4, 0.6]}}
SENT = {
    "adapter_config.json", "adapter_model.safetensors", "oracle.json", "ao_config.json", "README.md",
    "report.json", "report.md", "recipe.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: an oracle, its report and recipe, and all that must never be sent."""
    run = tmp_path_factory.mktemp("runs") / "run"
    lm = tiny_lm()
    add_adapter(lm, CONFIG, "made")
    with torch.no_grad():
        for parameter in adapter_parameters(lm.model, "made").values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    told = {"base_model": BASE, "trained_on": TrainedOn(recipe="mine"), "evaluation": FIGURES}
    save_oracle(lm, "made", CONFIG, tiny_contract(lm, block=1).model_copy(update=told), run / "oracle")
    for name in ("report.json", "report.md", "recipe.json", "metrics.jsonl", "token", ".env"):
        (run / name).write_text("{}\n")
    for name in ("checkpoints/step-10/optimizer.safetensors", "activations/shard-0.safetensors", "oracle/train.log"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("large")
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHub]:
    with serving() as server:
        use(server, monkeypatch, tmp_path / "home")
        yield server


def packed(folder: Path, repository: str = REPOSITORY) -> Parcel:
    return pack(folder, repository, "apache-2.0")


def pushed(folder: Path, **options: Any) -> Pushed:
    return push(packed(folder), **options)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, **changes: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), **changes}, path)


# --- what is sent --------------------------------------------------------------------------------------------------


def test_only_the_oracles_files_are_sent(run: Path) -> None:
    parcel = packed(run)
    assert {item.name for item in parcel.items} == SENT and parcel.folder == run / "oracle"
    assert parcel.size == sum(item.size for item in parcel.items) and parcel.tensors == 16 and parcel.base == BASE
    assert {item.name for item in packed(run / "oracle").items} == SENT - {"report.json", "report.md", "recipe.json"}


def test_packing_changes_no_file(run: Path) -> None:
    before = folder_bytes(run / "oracle")
    packed(run)
    assert folder_bytes(run / "oracle") == before


def test_the_sent_card_names_the_repository_and_the_licence(run: Path) -> None:
    card = next(item.source for item in packed(run).items if item.name == "README.md")
    assert isinstance(card, bytes)
    text = card.decode()
    assert f'augury.load_oracle("{REPOSITORY}", model)' in text
    assert f'PeftModel.from_pretrained(base, "{REPOSITORY}")' in text and "this folder or repository" not in text
    fields = front_matter(text)
    assert (fields["base_model"], fields["library_name"], fields["license"]) == (BASE, "peft", "apache-2.0")
    assert "activation-oracle" in fields["tags"] and "## Controls" in text and "## Limits" in text


def test_the_message_says_whose_oracle_and_its_first_figures(run: Path) -> None:
    found = message(packed(run))
    assert found == (
        "Oracle mine for org/base; yes/no AUC, all, at 10 activations: oracle 0.9 [0.8, 0.95]; shuffled 0.5 [0.4, 0.6]"
    )


# --- there and back ------------------------------------------------------------------------------------------------


def test_pushed_and_pulled_are_the_same_bytes(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    parcel = packed(run)
    result = push(parcel)
    there = hub.repositories[REPOSITORY]
    assert result.to_dict() == {
        "repository": REPOSITORY, "url": f"{hub.url}/{REPOSITORY}", "commit": there.branches["main"], "branch": None,
        "private": True, "created": True, "changed": True,
    }  # fmt: skip
    assert there.private and there.messages == ["initial commit", message(parcel)], "one commit"
    assert set(there.files()) == SENT | {".gitattributes"}
    pulled = pull(REPOSITORY, tmp_path / "here" / "oracle")
    assert pulled.commit == result.commit and pulled.folder == tmp_path / "here" / "oracle"
    found = folder_bytes(pulled.folder)
    assert set(found) == SENT and pulled.files == {name: len(content) for name, content in found.items()}
    local = {**folder_bytes(run), **folder_bytes(run / "oracle")}
    assert {name for name in SENT if found[name] != local[name]} == {"README.md"}
    assert pulled.contract == parcel.contract and list((tmp_path / "here").iterdir()) == [pulled.folder]
    again = pack(pulled.folder, REPOSITORY)
    assert [item.sha256 for item in again.items] == [item.sha256 for item in parcel.items], "the card too"


def test_what_was_pulled_is_an_oracle(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    pushed(run)
    model = tiny_lm()
    oracle = load_oracle(pull(REPOSITORY, tmp_path / "here").folder, model)
    assert oracle.contract.base_model == BASE and load_oracle(REPOSITORY, model).contract == oracle.contract


def test_without_a_folder_it_lies_in_the_cache(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    pushed(run)
    found = pull(REPOSITORY)
    assert (tmp_path / "home") in found.folder.parents and (found.folder / "report.json").is_file()


def test_an_empty_folder_stays_the_folder_it_is(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    pushed(run)
    (tmp_path / "empty").mkdir()
    inode = (tmp_path / "empty").stat().st_ino
    pull(REPOSITORY, tmp_path / "empty")
    assert set(folder_bytes(tmp_path / "empty")) == SENT and (tmp_path / "empty").stat().st_ino == inode
    assert len(list((tmp_path / "empty").iterdir())) == len(SENT)


def test_a_branch_is_made_and_found(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    first = pushed(run)
    (run / "report.md").write_text("better\n")
    second = pushed(run, branch="v2")
    branches = hub.repositories[REPOSITORY].branches
    assert branches == {"main": first.commit, "v2": second.commit} and second.branch == "v2" and not second.created
    assert (pull(REPOSITORY, tmp_path / "v2", "v2").folder / "report.md").read_text() == "better\n"
    assert (pull(REPOSITORY, tmp_path / "old", first.commit).folder / "report.md").read_text() == "{}\n"


def test_the_same_again_changes_nothing(run: Path, hub: ScriptedHub) -> None:
    hub.large = ()
    first, second = pushed(run), pushed(run)
    assert first.changed and not second.changed and first.commit == second.commit


def test_an_older_oracles_files_go_and_others_stay(run: Path, hub: ScriptedHub) -> None:
    mine = {"base_model": BASE}
    old = {"oracle.json": json.dumps(mine).encode(), "recipe.yaml": b"old", "LICENSE": b"text", "plot.png": b"picture"}
    there = hub.make(REPOSITORY, old)
    assert pushed(run).private is False
    assert set(there.files()) == SENT | {".gitattributes", "LICENSE", "plot.png"}


@pytest.mark.parametrize(("asked", "private"), [(None, True), (True, True), (False, False)])
def test_a_new_repository_is_private_unless_asked(
    run: Path, hub: ScriptedHub, asked: bool | None, private: bool
) -> None:
    assert pushed(run, private=asked).private is private and hub.repositories[REPOSITORY].private is private


# --- what the hub refuses ------------------------------------------------------------------------------------------


def in_three_parts(error: AuguryError, *words: str) -> None:
    assert error.what and error.why and error.instead
    for word in words:
        assert word in str(error), (word, str(error))
    assert "hf_writer" not in str(error)


def test_offline_is_refused(run: Path, hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="could not be reached") as refusal:
        pushed(run)
    in_three_parts(refusal.value, "HF_HUB_OFFLINE", "nothing was sent")
    assert hub.asked == []


def test_a_hub_that_is_not_there_is_refused(run: Path, hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_hub, "WAITS_S", (0.01, 0.01))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="could not be reached") as refusal:
        pushed(run)
    in_three_parts(refusal.value, "tried 3 times")


def test_no_token_is_refused_before_anything_is_asked(
    run: Path, hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(hub, monkeypatch, tmp_path, token=None)
    with pytest.raises(AccessError, match="Nobody is logged in") as refusal:
        pushed(run)
    in_three_parts(refusal.value, "hf auth login", "HF_TOKEN")
    assert hub.asked == [] and isinstance(refusal.value, PermissionError)


@pytest.mark.parametrize(
    ("token", "words"),
    [(UNKNOWN, ["does not take the token", "401", "hf auth login"]), (READER, ["may not write", "403", "right"])],
)
def test_tokens_without_rights(
    run: Path, hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, words: list[str]
) -> None:
    use(hub, monkeypatch, tmp_path / "home", token=token)
    with pytest.raises(AccessError) as refusal:
        pushed(run)
    in_three_parts(refusal.value, *words)
    assert token not in str(refusal.value) and hub.repositories == {}


def test_no_rights_to_a_repository_that_is_there(
    run: Path, hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.make(REPOSITORY, {})
    use(hub, monkeypatch, tmp_path / "home", token=READER)
    with pytest.raises(AccessError, match="may not write"):
        pushed(run)
    assert len(hub.repositories[REPOSITORY].commits) == 1


def test_another_owner_is_refused(run: Path, hub: ScriptedHub) -> None:
    with pytest.raises(AccessError, match="may not write to somebody/else"):
        push(packed(run, "somebody/else"))


def test_what_the_hub_finds_wrong_with_the_card(run: Path, hub: ScriptedHub) -> None:
    hub.bad_card = '"license" must be one of'
    with pytest.raises(FormatError, match="does not take it") as refusal:
        pushed(run)
    in_three_parts(refusal.value, '"license" must be one of')


def test_another_commit_meanwhile_is_not_overwritten(run: Path, hub: ScriptedHub) -> None:
    there = hub.make(REPOSITORY, {})
    hub.meanwhile = lambda repository: repository.commit("main", {"theirs": b""}, "theirs")
    with pytest.raises(NetworkError, match="not written") as refusal:
        pushed(run)
    in_three_parts(refusal.value, "changed", "see what is there")
    assert there.files() == {"theirs": b""}


def test_files_that_the_hub_leaves_out_are_told(run: Path, hub: ScriptedHub) -> None:
    hub.ignored = ("report.json",)
    with pytest.raises(FormatError, match="does not hold what was sent") as refusal:
        pushed(run)
    in_three_parts(refusal.value, "report.json", ".gitignore")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "oracle.json"])
def test_files_that_arrive_changed_are_told(
    run: Path, hub: ScriptedHub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.hub_server import Repository

    commit = Repository.commit

    def spoiled(self: Repository, branch: str, files: dict[str, bytes], text: str) -> str:
        return commit(self, branch, {**files, **({name: b"other"} if name in files else {})}, text)

    monkeypatch.setattr(Repository, "commit", spoiled)
    with pytest.raises(FormatError, match="does not hold what was sent") as refusal:
        pushed(run)
    in_three_parts(refusal.value, name)


# --- what lies there -----------------------------------------------------------------------------------------------

OTHERS = {
    "another base": ({"oracle.json": b'{"base_model": "org/other"}'}, "an oracle for org/other"),
    "a bare adapter": (
        {"adapter_config.json": b'{"base_model_name_or_path": "org/other"}'},
        "an adapter for org/other",
    ),
    "a broken contract": ({"oracle.json": b"{"}, "whose base cannot be read"),
    "a model": ({"config.json": b"{}", "model.safetensors": b""}, "files that are no oracle's (config.json"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_something_else_is_replaced_only_when_asked(run: Path, hub: ScriptedHub, case: str) -> None:
    files, words = OTHERS[case]
    there = hub.make(REPOSITORY, files)
    with pytest.raises(ContractError, match="is not replaced") as refusal:
        pushed(run)
    in_three_parts(refusal.value, words, BASE, "--replace")
    assert len(there.commits) == 1
    pushed(run, replace=True)
    assert there.files().keys() >= SENT


def test_a_new_branch_of_something_else_is_refused_too(run: Path, hub: ScriptedHub) -> None:
    there = hub.make(REPOSITORY, OTHERS["another base"][0])
    with pytest.raises(ContractError, match="is not replaced"):
        pushed(run, branch="v2")
    assert list(there.branches) == ["main"]


@pytest.mark.parametrize("private", [True, False])
def test_who_sees_it_is_not_other_than_asked(run: Path, hub: ScriptedHub, private: bool) -> None:
    hub.make(REPOSITORY, {}, private=not private)
    with pytest.raises(InputError, match="is not private" if private else "is not public") as refusal:
        pushed(run, private=private)
    in_three_parts(refusal.value, f"{hub.url}/{REPOSITORY}/settings")


@pytest.mark.parametrize("branch", ["", " ", "refs/pr/1", "a" * 40])
def test_what_is_no_branch(run: Path, hub: ScriptedHub, branch: str) -> None:
    with pytest.raises(InputError, match="is no branch"):
        pushed(run, branch=branch)
    assert hub.asked == []


@pytest.mark.parametrize("name", ["", "mine", "a/b/c", "../x", "me/x--y", "me/a.git", "me/" + "a" * 97, "me/a b"])
def test_what_is_no_repository(run: Path, name: str) -> None:
    for refused in (lambda: packed(run, name), lambda: pull(name)):
        with pytest.raises(InputError, match="is no repository") as refusal:
            refused()
        in_three_parts(refusal.value, "owner/name")


# --- what is not sent ----------------------------------------------------------------------------------------------


def refuses(folder: Path, kind: type[AuguryError], *words: str) -> None:
    with pytest.raises(kind) as refusal:
        packed(folder)
    in_three_parts(refusal.value, *words)


def test_folders_without_an_oracle(run: Path, tmp_path: Path) -> None:
    refuses(tmp_path / "none", NotFoundError, "There is no folder")
    refuses(run / "checkpoints", NotFoundError, "adapter_config.json")
    shutil.rmtree(run / "oracle")
    refuses(run, NotFoundError, "not finished", "--resume")


@pytest.mark.parametrize("name", ["oracle.json", "README.md"])
def test_files_that_are_missing(run: Path, name: str) -> None:
    (run / "oracle" / name).unlink()
    refuses(run, NotFoundError, name, "save_pretrained")


def test_tensors_that_are_not_finite(run: Path) -> None:
    key = next(iter(load_file(run / "oracle" / "adapter_model.safetensors")))
    edit_tensors(run / "oracle", **{key: torch.full((8, 48), float("nan"))})
    refuses(run, FormatError, "not finite", key)


def test_tensors_that_are_no_whole_lora(run: Path) -> None:
    path = run / "oracle" / "adapter_model.safetensors"
    whole = load_file(path)
    up = next(key for key in whole if "lora_B" in key)
    save_file({key: tensor for key, tensor in whole.items() if key != up}, path)
    refuses(run, FormatError, "other half", up)
    save_file({key: torch.zeros_like(t) if "lora_B" in key else t for key, t in whole.items()}, path)
    refuses(run, ModelError, "changes nothing")
    save_file({"other": torch.ones(1)}, path)
    refuses(run, FormatError, "no pair")
    path.write_bytes(b"no tensors")
    refuses(run, FormatError, "cannot be read")


def test_another_rank_than_the_configuration(run: Path) -> None:
    edit(run / "oracle" / "adapter_config.json", r=3)
    refuses(run, FormatError, "rank", "says 3")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"base_model": "/home/me/base"}, ContractError, ["no model of the hub", "base_model"]),
        ({"base_model": None}, ContractError, ["does not state"]),
        ({"layers": None}, ContractError, ["does not state"]),
        ({"base_model": "org/other"}, ContractError, ["different bases", "org/other"]),
        ({"new_field": 1}, FormatError, ["new_field"]),
        ({"schema_version": 9}, FormatError, ["newer"]),
        ({"d_model": "wide"}, FormatError, ["d_model"]),
        ({"layers": [[1]]}, FormatError, ["contradict", "ao_config.json"]),
        ({"injection": {"operation": "replace"}}, FormatError, ["contradict"]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:oracle.json has unknown fields")
def test_contracts_that_are_not_published(
    run: Path, changes: dict[str, Any], kind: type[AuguryError], words: list[str]
) -> None:
    edit(run / "oracle" / "oracle.json", **changes)
    refuses(run, kind, *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("---\nbase_model", "base_model", ["no front matter"]),
        ("---\n\n# ", "\n# ", ["no front matter"]),
        ("library_name: peft", "library_name: [", ["no YAML"]),
        ("library_name: peft", "library_name: transformers", ["library_name", "peft"]),
        (f"base_model: {BASE}", "base_model: org/other", ["base_model", BASE]),
        ("- activation-oracle", "- other", ["activation-oracle"]),
    ],
    ids=str,
)
def test_cards_that_are_not_published(run: Path, old: str, new: str, words: list[str]) -> None:
    path = run / "oracle" / "README.md"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    refuses(run, FormatError, *words)


def test_licences(run: Path) -> None:
    with pytest.raises(FormatError, match="states no licence") as refusal:
        pack(run, REPOSITORY)
    in_three_parts(refusal.value, "--license")
    with pytest.raises(InputError, match="is no licence"):
        pack(run, REPOSITORY, "Apache 2.0")
    path = run / "oracle" / "README.md"
    path.write_text(path.read_text().replace("library_name", "license: mit\nlibrary_name", 1))
    assert pack(run, REPOSITORY).items == pack(run, REPOSITORY, "mit").items
    with pytest.raises(InputError, match="Two licences"):
        packed(run)


def test_tokens_and_folders_in_files(run: Path) -> None:
    (run / "recipe.json").write_text(json.dumps({"folder": str(Path.home() / "runs")}))
    assert any("recipe.json names folders of this machine" in note for note in packed(run).notes)
    (run / "recipe.json").write_text(json.dumps({"token": "hf_" + "a" * 34}))
    with pytest.raises(InputError, match="not published") as refusal:
        packed(run)
    in_three_parts(refusal.value, "recipe.json", "token")
    assert "aaaa" not in str(refusal.value)


# --- what is not pulled --------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_not_replaced(hub: ScriptedHub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(InputError, match="is not replaced"):
        pull(REPOSITORY, tmp_path / "mine")
    with pytest.raises(InputError, match="is a file"):
        pull(REPOSITORY, tmp_path / "mine" / "notes")
    assert hub.asked == [] and (tmp_path / "mine" / "notes").read_text() == "mine"


def test_a_broken_oracle_is_not_laid_anywhere(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    pushed(run)
    there = hub.repositories[REPOSITORY]
    there.commit("main", {**there.files(), "adapter_model.safetensors": b"broken"}, "spoiled")
    with pytest.raises(FormatError, match="cannot be read"):
        pull(REPOSITORY, tmp_path / "goal" / "here")
    assert not (tmp_path / "goal").exists()


def test_an_adapter_without_a_contract_is_pulled_with_a_note(run: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    pushed(run)
    there = hub.repositories[REPOSITORY]
    bare = {name: there.files()[name] for name in ("adapter_config.json", "adapter_model.safetensors")}
    there.commit("main", bare, "bare")
    found = pull(REPOSITORY, tmp_path / "here")
    assert found.contract is None and "no contract" in found.notes[0] and set(found.files) == set(bare)


def test_repositories_that_cannot_be_pulled(hub: ScriptedHub) -> None:
    hub.make("org/model", {"config.json": b"{}"})
    with pytest.raises(NotFoundError, match="is no oracle"):
        pull("org/model")
    with pytest.raises(NotFoundError, match="no oracle nobody/nothing"):
        pull("nobody/nothing")


def test_offline_what_was_pulled_once_is_found(
    run: Path, hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(run)
    first = pull(REPOSITORY)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert pull(REPOSITORY, tmp_path / "here").commit == first.commit
    with pytest.raises(NetworkError, match="could not be reached"):
        pull("me/other")
