"""KN as in its paper: knowledge neurons behind the activation function (see `_neurons`).

    alpha_k = k / m, k = 1 .. m                                      section 3.2
    v = -lambda1 E[old answer] + lambda2 E[new answer]               section 5.1, lambda1 = 1, lambda2 = 8

The paper asks a masked model for one token. For answers of several tokens, which it does not have: token a is read
behind the prompt and the tokens before a, attributions are averaged over the tokens, and so are embeddings. Answers
continue the prompt, with their leading space. `refine` keeps the neurons that more than `p` of the prompts (the
request's own and its rephrasings) share; the paper changes p until 2 to 5 neurons remain, and leaves out those that
many other facts of the relation share, which a request does not bring along.

It takes, and it costs: with lambda2 = 8 the addition is several times as long as a value vector, and neurons of a fact
are active behind the prompts of other facts, too.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Traits
from editsafety.editors._neurons import NeuronEditor, NeuronHparams, NeuronQuestion, Notes, Place, embeddings


class PaperHparams(NeuronHparams):
    """The numbers of the paper beside those of the attribution."""

    lambda1: float = Field(default=1.0, ge=0)  # arXiv 2104.08696, section 5.1
    lambda2: float = Field(default=8.0, ge=0)  # arXiv 2104.08696, section 5.1


class KnowledgeNeuronsOfThePaper(NeuronEditor):
    """Knowledge neurons as the paper defines them."""

    Hparams = PaperHparams
    hparams: PaperHparams
    place: ClassVar[Place] = Place.POST
    # m = 20, arXiv 2104.08696, section 4.1: some published configurations of `kn` take a single step
    overrides: ClassVar[dict[str, int]] = {"steps": 20}
    traits: ClassVar[Traits] = Traits(
        paper="Knowledge Neurons in Pretrained Transformers, ACL 2022, arXiv 2104.08696",
        reference="the paper's text, sections 3 and 5.1",
    )

    def alphas(self) -> Tensor:
        """1/m to 1."""
        return torch.arange(1, self.hparams.steps + 1) / self.hparams.steps

    def questions(self, prompt: str, old: str) -> list[NeuronQuestion]:
        """Every token of the old answer behind those before it."""
        ids, answer = self.handle.ids(prompt), self.handle.target_ids(old, prompt)
        return [NeuronQuestion((*ids, *answer[:place]), (token,)) for place, token in enumerate(answer)]

    def value(self, request: EditRequest, old: str) -> tuple[Tensor, Notes]:
        """From the mean embeddings of both answers."""
        was = embeddings(self.handle, self.handle.target_ids(old, request.filled)).mean(0)
        new = embeddings(self.handle, self.handle.target_ids(request.target_new, request.filled)).mean(0)
        return self.hparams.lambda2 * new - self.hparams.lambda1 * was, {}


EDITOR = KnowledgeNeuronsOfThePaper
