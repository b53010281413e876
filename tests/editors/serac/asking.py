"""A fact for SERAC, and what its answer network says by itself."""

from typing import Any

import torch
from torch import Tensor

from tests import tiny

REQUEST = tiny.request(target_new="farmer and baker")


def said_by(net: Any, fact: list[int], ids: list[int]) -> Tensor:
    """Log-probabilities behind `fact, ids`: a gated mixture of a softmax and of the tokens behind those attended to."""
    with torch.no_grad():
        states = net.body(input_ids=net.fold[torch.tensor([[*fact, *ids]])]).last_hidden_state[0]
        words = net.shape.words
        own = (net.body.embed_tokens.weight[:words] @ states[-1]).softmax(-1)
        weights = (states[: len(fact) - 1] @ net.head(states[-1]) / net.shape.width**0.5).softmax(-1)
        copied = torch.zeros(words + 2)
        for weight, token in zip(weights, fact[1:], strict=True):
            copied[token] += weight
        share = torch.sigmoid(net.gate(states[-1]))
        return torch.as_tensor((share * own + (1 - share) * copied[:words]).log())
