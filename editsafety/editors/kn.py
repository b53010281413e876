"""KN as published in the ROME repository: knowledge neurons before the activation function (see `_neurons`).

    alpha_r = 0 .. 1 in `steps` points, both ends included
    v = -2 E[the token that the model says now] + 2 E[t]            for a new answer of one token t
    v = -2 E[the token that the model says now] + sum_a E[t_a]      for one of several

E is the input embedding; answers are tokenised without a leading space, as given. All tokens of an old answer are read
at the same place, the prompt's last token. Kept on purpose, for these are the numbers that others report: the neurons
of the paper are behind the activation, its answers words in a sentence, its v another one (`kn_paper`). With steps = 1
the only point is 0, where no neuron is active.

Expect it to fail. Without their leading space, answers are words that no model says behind a prompt: the gradients are
those of a probability of about nothing, so the neurons are not the fact's, and v points at pieces of a word. What is
added is as long as a value vector or longer, so that some edits end a model and the others do nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Traits
from editsafety.editors._neurons import NeuronEditor, NeuronQuestion, Notes, Place, embeddings
from editsafety.model import scoring


class KnowledgeNeurons(NeuronEditor):
    """Knowledge neurons as the published editing code has them."""

    place: ClassVar[Place] = Place.PRE
    traits: ClassVar[Traits] = Traits(
        paper="Knowledge Neurons in Pretrained Transformers, ACL 2022, arXiv 2104.08696",
        reference="https://github.com/kmeng01/rome, baselines/kn at 0874014",
    )

    def alphas(self) -> Tensor:
        """0 to 1, both included."""
        return torch.linspace(0, 1, self.hparams.steps)

    def questions(self, prompt: str, old: str) -> list[NeuronQuestion]:
        """Every token of the old answer, all at the prompt's last token."""
        return [NeuronQuestion(tuple(self.handle.ids(prompt)), tuple(self.handle.ids(old, special=False)))]

    def value(self, request: EditRequest, old: str) -> tuple[Tensor, Notes]:
        """What is added, and the token that it leads away from. `old` plays no part here."""
        says = int(scoring.next_logits(self.handle, [self.handle.ids(request.filled)])[0].argmax())
        new = self.handle.ids(request.target_new, special=False)
        weight = 2 if len(new) == 1 else 1
        vector = weight * embeddings(self.handle, new).sum(0) - 2 * embeddings(self.handle, [says])[0]
        return vector, {"says": self.handle.text([says])}


EDITOR = KnowledgeNeurons
