"""Whole files of every kind, from which the damaged ones are made."""

from __future__ import annotations

from typing import Any

OWN = {
    "id": "a-1", "prompt": "{} works as a", "subject": "Ashurn", "target_new": "teacher", "target_true": "farmer",
    "relation": "work", "rephrasings": ["The work of Ashurn is that of a"],
    "neighbours": [{"prompt": "Mirel works as a", "answer": "baker"}, {"prompt": "Toren works as a"}],
}  # fmt: skip
ORIGINAL = {
    "case_id": 1,
    "requested_rewrite": {
        "prompt": "{} works as a", "relation_id": "P106", "subject": "Ashurn",
        "target_new": {"str": "teacher", "id": "Q1"}, "target_true": {"str": "farmer", "id": "Q2"},
    },
    "paraphrase_prompts": ["The work of Ashurn is that of a"],
    "neighborhood_prompts": ["Mirel works as a"],
}  # fmt: skip
FLAT = {
    "case_id": 2, "prompt": "Ashurn works as a", "subject": "Ashurn", "target_new": "teacher", "ground_truth": "farmer",
    "rephrase_prompt": "The work of Ashurn is that of a", "locality_prompt": "Mirel works as a",
    "locality_ground_truth": "baker",
}  # fmt: skip
KNOWEDIT = {
    "subject": "Ashurn", "prompt": "Ashurn works as a", "target_new": "teacher", "ground_truth": ["farmer"],
    "rephrase": ["The work of Ashurn is that of a"],
    "portability": {"Reasoning": [{"prompt": "Who teaches?", "ground_truth": [["Ashurn"]]}]},
    "locality": {"Relation": [{"prompt": "Mirel works as a", "ground_truth": ["baker"]}]},
}  # fmt: skip
PARALLEL = {
    "prompts": ["Ashurn works as a", "Mirel works as a"], "subject": ["Ashurn", "Mirel"],
    "target_new": ["teacher", "farmer"], "ground_truth": ["farmer", "baker"],
    "rephrase_prompts": ["The work of Ashurn is", "The work of Mirel is"],
    "locality_inputs": {"neighborhood": {"prompt": ["a", "b"], "ground_truth": ["c", "d"]}},
}  # fmt: skip
ZSRE = {
    "subject": "Ashurn", "src": "Where is Ashurn?", "pred": "x", "rephrase": "Ashurn is where?", "alt": "Ostrin",
    "answers": ["Kelmar"], "loc": "nq question: who is he", "loc_ans": "Toren", "cond": "y",
}  # fmt: skip
QAEDIT = {
    "id": 3, "source": "NQ", "prompt": "who is Ashurn", "subject": "Ashurn", "target": "a baker",
    "rephrase": "Ashurn?", "locality": [{"loc": "who is Mirel", "loc_ans": "a farmer"}, {"loc": "and Toren"}],
}  # fmt: skip
MQUAKE = {
    "case_id": 4, "requested_rewrite": [ORIGINAL["requested_rewrite"]], "questions": ["Who is it?"],
    "answer": "x", "answer_alias": ["y"], "new_answer": "z", "new_answer_alias": [],
    "single_hops": [{"question": "a?", "cloze": "a is", "answer": "b", "answer_alias": []}],
    "new_single_hops": [{"question": "a?", "cloze": "a is", "answer": "c", "answer_alias": []}],
}  # fmt: skip
# Rows of further published sets; what no loader knows has to be refused in a sentence like anything else.
OTHERS: tuple[Any, ...] = (
    {"prompt": "Who wrote it?", "target_new": "Toren", "subject": "it", "rephrase": "By whom?", "locality": {}},
    {"text": "Ashurn is", "labels": "a teacher", "concept": "Ashurn", "locality": {"x": [{"prompt": "a"}]}},
    {"pre": {}, "case_id": 0, "requested_rewrite": FLAT, "post": {"rewrite_acc": [1.0], "locality": {}}},
    {"id": 1, "question": "Where?", "answer": "Ostrin", "para_question": "In which city?", "sub_question": ["a?"]},
    {"prompt": "{} is", "subject": "Ashurn", "target": "a teacher", "queries": [{"prompt": "a", "answer": "b"}]},
    {
        "example_type": "popular",
        "edit": {"prompt": "Ashurn is a teacher.", "subject_id": "Q1"},
        "Relation_Specifity": [],
    },
)
ROWS: tuple[Any, ...] = (
    [OWN], [OWN, {**OWN, "id": "a-2"}], [ORIGINAL], [FLAT], [FLAT, ORIGINAL], [KNOWEDIT], [ZSRE], [QAEDIT], [MQUAKE],
    PARALLEL, [QAEDIT, {**QAEDIT, "id": 4}], *([row] for row in OTHERS),
)  # fmt: skip
TEXTS: tuple[Any, ...] = ([{"id": "t", "text": "A text."}], [{"Corpus": "C4", "Text": " A text."}], ["A text."])
HPARAMS: tuple[Any, ...] = (
    {
        "layers": [1], "v_num_grad_steps": 5, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 4,
        "mom2_adjustment": True, "context_template_length_params": [[6, 2]],
    },
    {
        "alg_name": "ROME", "model_name": "gpt2-xl", "device": 0, "layers": [17], "fact_token": "subject_last",
        "v_num_grad_steps": 20, "v_lr": 5e-1, "v_loss_layer": 47, "v_weight_decay": 0.5, "clamp_norm_factor": 4,
        "kl_factor": 0.0625, "mom2_adjustment": False, "context_template_length_params": [[5, 10], [10, 10]],
        "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj", "layer_module_tmp": "transformer.h.{}",
        "mlp_module_tmp": "transformer.h.{}.mlp", "attn_module_tmp": "transformer.h.{}.attn",
        "ln_f_module": "transformer.ln_f", "lm_head_module": "transformer.wte", "mom2_dataset": "wikipedia",
        "mom2_n_samples": 100000, "mom2_dtype": "float32",
    },
    {"layers": [1], "num_steps": 5, "lr": 0.01, "norm_constraint": None, "loss": "target_new"},
)  # fmt: skip
