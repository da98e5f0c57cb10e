"""The graph that is traced answers as ptune does, from nothing but what a tokenizer gives."""

from __future__ import annotations

import pytest
import torch

from ptune.data.targets import MULTI
from ptune.errors import BackboneError
from ptune.export.check import check_model, made_up_rows
from ptune.export.graph import ClassifierGraph, trace
from ptune.export.places import MaskPlace, pair_place
from ptune.export.task import task_of
from ptune.export.tokenizer import write_tokenizer
from ptune.model.decision import Decision

WORDS = "{text} it is {mask} ."
CASES = {
    "encoder": ("bert", {"task": {"temperature": 1.7}}, []),
    "cut": ("bert", {"max_length": 9}, []),
    "ensemble": ("roberta", {"members": 3}, []),
    "multi-label": ("bert", {"problem_type": MULTI, "task": {"decision": Decision((0.3, 0.6, 0.5), True)}}, []),
    "ensemble of multi-label": ("bert", {"problem_type": MULTI, "members": 2}, []),
    "regression": ("roberta", {"problem_type": "regression", "members": 2}, []),
    "pairs": ("bert", {"pairs": True, "pooling": "pair"}, []),
    "pairs with segments": ("bert with segments", {"pairs": True, "pooling": "pair"}, ["token_type_ids"]),
    "segments": ("bert with segments", {}, ["token_type_ids"]),
    "pairs with the mean": ("roberta", {"pairs": True, "pooling": "mean"}, []),
    "PEFT's prompt and head": ("bert", {"method": "p-tuning", "encoder_hidden_size": 8, "pooling": "peft"}, []),
    "first": ("distilbert", {"pooling": "first"}, []),
    "decoder": ("llama", {}, []),
    "decoder's pairs": ("gpt2", {"pairs": True}, []),
    "decoder's pairs compared": ("llama", {"pairs": True, "pooling": "pair"}, ["pair_position"]),
    "shallow decoder": ("gpt2", {"method": "prompt-tuning"}, []),
    "template": ("bert", {"language": True, "template": WORDS, "pooling": "mask", "max_length": 14}, []),
    "template of pairs": (
        "llama",
        {"pairs": True, "template": "one: {text} two: {text_pair} so", "max_length": 20},
        [],
    ),
    "template without a place for pairs": ("bert", {"pairs": True, "template": "a {{film}} {text} ends"}, []),
}


def check(classifier, folder, graph=None):
    """Compare the graph, not traced, with the classifier."""
    graph = graph or ClassifierGraph(classifier)
    task = task_of(classifier, "torch", False, graph.input_names)
    write_tokenizer(classifier, folder)
    with torch.no_grad():
        return check_model(
            classifier, task, folder, lambda inputs: graph(*map(torch.from_numpy, inputs.values())).numpy()
        )


@pytest.mark.parametrize("case", CASES)
def test_the_graph_answers_as_the_classifier(case, make, tmp_path) -> None:
    family, settings, inputs = CASES[case]
    classifier = make(family, **settings)
    graph = ClassifierGraph(classifier)
    assert graph.input_names == ["input_ids", "attention_mask", *inputs]
    done = check(classifier, tmp_path, graph)
    assert done.difference < 1e-4
    assert done.agreeing in (None, done.texts)


def test_the_number_of_rows_stays_free_for_every_head(make) -> None:
    classifier = make("bert with segments", method="p-tuning", encoder_hidden_size=8, pooling="peft")
    program = trace(ClassifierGraph(classifier), "torch").module()
    ids = torch.randint(4, 20, (3, 9))
    logits = program(ids, torch.ones_like(ids), torch.zeros_like(ids))
    torch.testing.assert_close(
        logits[1:2], program(*(x[1:2] for x in (ids, torch.ones_like(ids), torch.zeros_like(ids))))
    )


def test_a_graph_that_answers_otherwise_is_noticed(make, tmp_path) -> None:
    classifier = make("roberta")
    graph = ClassifierGraph(classifier)
    graph.prompt0 += 0.01
    with pytest.raises(BackboneError, match=r"logits differ by up to .* \(allowed: 0\.0001\), so nothing was written"):
        check(classifier, tmp_path, graph)


def test_the_texts_of_the_check_have_many_lengths_and_one_is_cut(make) -> None:
    classifier = make("bert", max_length=30)
    rows = made_up_rows(classifier, task_of(classifier, "onnx", False, ["input_ids", "attention_mask"]))
    encoded = classifier.encoder.encode([first for first, _ in rows])
    assert encoded[1].cut
    assert len({len(row) for row in encoded}) >= 6


@pytest.mark.parametrize(("text", "pair"), [("good film", "bad"), ("", "bad"), ("good", ""), ("", "")])
@pytest.mark.parametrize("segments", [True, False])
def test_the_second_text_is_found_by_segments_and_by_the_separator(text, pair, segments, make) -> None:
    classifier = make("bert with segments", pairs=True)
    place = pair_place(classifier.encoder.tokenizer, segments)
    assert place.known
    assert place.by_segments == segments
    (row,) = classifier.encoder.encode([text], [pair])
    padded = torch.tensor([[*row.ids, 0, 0]])
    mask = torch.tensor([[1] * len(row) + [0, 0]])
    found = place.find(padded, mask, torch.tensor([[*(row.segments or []), 0, 0]]))
    assert found.tolist() == [row.pair_position]


def test_a_separator_of_two_tokens_is_found(make) -> None:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend = make("bert").encoder.tokenizer.backend_tokenizer.from_str(
        make("bert").encoder.tokenizer.backend_tokenizer.to_str()
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    place = pair_place(tokenizer, True)  # all its segments are 0
    assert (place.by_segments, place.separator, place.closing) == (False, (3, 3), 1)
    for text, pair in (("good film", "bad plot"), ("", "bad"), ("good", "")):
        row = tokenizer(text, pair)
        ids, texts = row["input_ids"], row.sequence_ids(0)
        expected = texts.index(1) if 1 in texts else len(ids)
        assert place.find(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long), None).tolist() == [expected]


def test_a_separator_that_the_first_text_spells_is_taken_for_the_border(make) -> None:
    """Ids do not tell the two apart; docs/export.md says so."""
    tokenizer = make("bert", pairs=True).encoder.tokenizer
    place = pair_place(tokenizer, False)
    row = tokenizer(f"good {tokenizer.sep_token} film", "bad")
    ids, border = row["input_ids"], row.sequence_ids(0).index(1)
    found = place.find(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long), None)
    assert found.item() == ids.index(tokenizer.sep_token_id) + 1 < border


def test_the_mask_token_of_the_template_is_told_from_those_of_the_text() -> None:
    ids = torch.tensor([[2, 9, 5, 9, 3, 0], [2, 9, 3, 0, 0, 0]])
    assert MaskPlace(9, last=True).find(ids).tolist() == [3, 1]
    assert MaskPlace(9, last=False).find(ids).tolist() == [1, 1]


def test_the_written_template_puts_a_pair_into_the_field_alone(make) -> None:
    classifier = make("bert", pairs=True, template="a {{text}} {text} ends")
    template = task_of(classifier, "torch", False, ["input_ids"]).template
    assert template is not None
    assert template.format(text="x", text_pair="y") == "a {text} x\ny ends"
