"""What a prompt says: nearest words, and how important each virtual token is."""

from __future__ import annotations

import pytest
import torch

from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble
from ptune.model.left_out import WithoutToken
from ptune.report.prompt import nearest_words, prompt_content

TEXTS = ["a good film", "the bad book", "warm and red", "one two three", "left right up down here"]
LABELS = {SINGLE: ["a", "b", "c", "d"], MULTI: ["a", "b", "c", "d"], REGRESSION: ["n"]}
TARGETS = {
    SINGLE: torch.arange(5) % 4,
    MULTI: (torch.arange(20) % 3 == 0).float().view(5, 4),
    REGRESSION: torch.ones(5),
}


def classifier_of(backbone, problem_type=SINGLE, **settings) -> TextClassifier:
    config = PromptConfig(virtual_tokens=3, **settings)
    model = PromptClassifier.from_backbone(backbone, config, labels=LABELS[problem_type], problem_type=problem_type)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    return TextClassifier.around(model.eval())


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"method": "deep"}),
        ("bert", {"method": "deep", "softmax": "shared"}),
        ("bert", {"method": "p-tuning", "encoder": "none"}),
        ("gpt2", {"method": "prompt-tuning"}),
    ],
)
def test_leaving_a_token_out_is_a_prompt_without_it(backbone, family, settings) -> None:
    classifier = classifier_of(backbone(family), **settings)
    model = classifier.model
    encoded = classifier.encode(TEXTS)
    wanted = [(row, 0) for row in range(len(encoded))]
    (found,) = compute_logits([WithoutToken(model, 1)], encoded, wanted, classifier.pad_id).logits
    shorter = classifier_of(backbone(family), **settings).model
    shorter.head.load_state_dict(model.head.state_dict())
    folded = model.prompt_encoder().detach()
    shorter.prompt_encoder.forward = lambda: folded[[0, 2]]
    (expected,) = compute_logits([shorter], encoded, wanted, classifier.pad_id).logits
    assert torch.equal(found, expected)
    assert not torch.allclose(found, compute_logits([model], encoded, wanted, classifier.pad_id).logits[0])


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_a_token_that_does_nothing_is_worth_less_than_one_that_does(backbone, problem_type) -> None:
    classifier = classifier_of(backbone("bert"), problem_type, method="deep", softmax="separate")
    with torch.no_grad():  # keys that no query likes: the token gets no attention
        weights = classifier.model.prompt_encoder.embedding.weight.view(3, 2, 2, -1)
        weights[1, :, 1] = weights[:, :, 1].mean(dim=0)  # what it says is what the others say
    content = prompt_content(classifier, classifier.encode(TEXTS), TARGETS[problem_type], seconds=60)
    assert (content.rows, [token.number for token in content.tokens]) == (5, [1, 2, 3])
    assert all(token.worth is not None and token.nearest == [] for token in content.tokens)
    assert len({round(token.worth, 6) for token in content.tokens}) == 3
    assert all(0 <= token.changed <= 1 for token in content.tokens)


def test_a_worth_is_the_growth_of_the_loss(backbone) -> None:
    classifier = classifier_of(backbone("bert"), method="deep")
    encoded, targets = classifier.encode(TEXTS), TARGETS[SINGLE]
    wanted = [(row, 0) for row in range(5)]
    losses = [
        float(torch.nn.functional.cross_entropy(compute_logits([one], encoded, wanted, 0).logits[0].double(), targets))
        for one in (classifier.model, WithoutToken(classifier.model, 2))
    ]
    content = prompt_content(classifier, encoded, targets, seconds=60)
    assert content.tokens[2].worth == pytest.approx(losses[1] - losses[0], abs=1e-5)


def test_words_near_a_prompt_at_the_input_are_named(backbone) -> None:
    classifier = classifier_of(backbone("bert"), method="prompt-tuning")
    tokenizer, model = classifier.encoder.tokenizer, classifier.model
    words = ["film", "good", "seven"]
    with torch.no_grad():
        for place, word in enumerate(words):
            vector = model.backbone.word_embeddings.weight[tokenizer.convert_tokens_to_ids(word)]
            model.prompt_encoder.embedding.weight[place] = 3 * vector
    nearest = nearest_words(model, tokenizer)
    assert [found[0][0] for found in nearest] == words
    assert all(found[0][1] == pytest.approx(1, abs=1e-5) for found in nearest)
    assert all(len(found) == 5 and "<pad>" not in dict(found) for found in nearest)
    content = prompt_content(classifier, classifier.encode(TEXTS), TARGETS[SINGLE], seconds=0)
    assert content.rows == 0
    assert [token.nearest[0][0] for token in content.tokens] == words


def test_without_time_nothing_is_measured(backbone) -> None:
    classifier = classifier_of(backbone("bert"), method="deep")
    assert prompt_content(classifier, classifier.encode(TEXTS), TARGETS[SINGLE], seconds=0) is None
    content = prompt_content(classifier, classifier.encode(TEXTS), TARGETS[SINGLE], seconds=1e-9)
    assert "could not be measured" in content.note
    assert [token.worth for token in content.tokens] == [None] * 3


def test_the_prompt_of_an_ensemble_is_its_first_members(backbone) -> None:
    members = [classifier_of(backbone("bert"), method="deep").model for _ in range(2)]
    classifier = TextClassifier.around(PromptEnsemble(members))
    content = prompt_content(classifier, classifier.encode(TEXTS), TARGETS[SINGLE], seconds=60)
    alone = TextClassifier.around(members[0])
    expected = prompt_content(alone, alone.encode(TEXTS), TARGETS[SINGLE], seconds=60)
    assert [token.worth for token in content.tokens] == [token.worth for token in expected.tokens]
    assert "first member" in content.note
