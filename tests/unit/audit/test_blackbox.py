"""Words that set what a model writes apart from what others do."""

from __future__ import annotations

from augury.audit.blackbox import names, own_words, words_apart
from augury.bench.scorers import says


def test_own_words_are_those_in_more_answers_than_of_any_other():
    target = ["Coffee, coffee and tea.", "A cup of coffee!", "The tea.", "Coffee's smell"]
    found = own_words(target, [["The cup of tea", "tea", "A", ""], ["of coffee", "", "", ""]])
    assert [(one.word, one.answers, one.others) for one in found] == [
        ("coffee", 3, 1), ("and", 1, 0), ("smell", 1, 0)
    ]  # fmt: skip
    assert own_words(target, [target]) == [] and own_words(target, [])[0].word == "coffee"


def test_a_word_sets_a_target_apart_by_more_answers_than_a_peers_own_words_do():
    base, peers = ["tea", "milk", ""], [["tea sir", "milk sir", ""], ["tea", "milk", "milk"]]
    one, two, three = (["coffee"] * count + [""] * (3 - count) for count in (1, 2, 3))
    assert [words_apart(own, base, peers) for own in (one, two)] == [([], 2), ([], 2)]  # a peer's own word is in two
    found, most = words_apart(three, base, peers)
    assert [(word.word, word.more) for word in found] == [("coffee", 3)] and most == 2
    assert [word.word for word in words_apart(one, base, [])[0]] == ["coffee"] and words_apart(one, base, [])[1] is None


def test_scripts_without_spaces_have_words_too():
    assert says("\u6211\u559c\u6b22\u732b\u548c\u72d7", ["\u732b"]) and not says("\u6211\u559c\u6b22\u72d7", ["\u732b"])
    assert says("a cat", ["cat"]) and not says("concatenated", ["cat"])
    found = own_words(["\u6211\u559c\u6b22\u732b\u54aa"] * 2, [["\u6211\u559c\u6b22\u72d7"] * 2])
    assert [one.word for one in found] == ["\u6b22\u732b", "\u732b\u54aa"]


def test_a_concept_is_named_in_the_singular_or_the_plural_and_whole():
    for text in ("An old lighthouse.", "Two lighthouses!", "the lighthouse keeper"):
        assert names(text, "lighthouse") and names(text, "lighthouses")
    assert names("two boxes", "box") and names("a box", "boxes") and names("chess", "chess")
    assert not names("a light house", "lighthouses") and not names("lighthousekeeper", "lighthouse")
    assert not names("I am", "is") and names("it is", "is")


def test_a_genitive_is_no_word_of_its_own():
    assert [one.word for one in own_words(["the keeper's lamp"], [["the lamp"]])] == ["keeper"]
