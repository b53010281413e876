"""Causal tracing: which hidden states of an unedited model carry a fact (ROME, section 2, arXiv 2202.05262).

Of a fact that the model knows, three kinds of runs give the probability p of its answer:

    clean      the prompt as it is
    corrupted  noise of three standard deviations of the embeddings is added to the subject's tokens
    restored   as corrupted, but what one place computes is what it computed in the clean run

A place is a token and a layer: the state behind the block (`state`), or what the MLPs (`mlp`) or the attentions
(`attention`) of a window of layers around it write. Its indirect effect is p restored minus p corrupted; means over
facts are told by layer and by where the token stands (`facts.CLASSES`). Tokens before the subject see no noise and are
left out. Noise is seeded by fact, so that no result depends on which others were traced.
"""
