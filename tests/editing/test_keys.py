"""Keys: what a projection receives and returns at the subject's last token."""

import pytest
import torch

from editsafety.editing import keys
from editsafety.editing.keys import at_subject
from editsafety.editing.subject import locate
from tests import tiny

CONTEXTS = ("{}", "Toren plays the flute. {}", "A farmer grows wheat. {}")


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama", "opt", "bloom"])
def test_a_batched_key_is_the_key_of_the_prompt_alone(family: str) -> None:
    handle = tiny.handle(family)
    site = handle.mlp_out(1)
    prompts = [locate(handle, tiny.request(), context) for context in CONTEXTS]
    found = at_subject(handle, site.module, prompts)
    for row, prompt in enumerate(prompts):
        alone = at_subject(handle, site.module, [prompt])
        torch.testing.assert_close(found.inputs[row], alone.inputs[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.outputs[row], alone.outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
def test_the_output_is_the_weight_times_the_key_plus_the_bias(family: str) -> None:
    handle = tiny.handle(family)
    site = handle.mlp_out(1)
    found = at_subject(handle, site.module, [locate(handle, tiny.request())])
    bias = getattr(handle.model.get_submodule(site.module), "bias", None)
    expected = handle.weight(site) @ found.inputs[0] + (0 if bias is None else bias.detach())
    torch.testing.assert_close(found.outputs[0], expected, rtol=1e-4, atol=1e-5)


def test_layers_behind_the_module_are_not_run() -> None:
    handle = tiny.handle("gpt2")
    ran: list[str] = []
    hooks = [
        handle.model.get_submodule(handle.block(layer)).register_forward_hook(lambda *_, n=layer: ran.append(n))
        for layer in range(handle.layers)
    ]
    at_subject(handle, handle.mlp_out(0).module, [locate(handle, tiny.request())])
    for hook in hooks:
        hook.remove()
    assert ran == []


@pytest.mark.parametrize("rows", [1, 5, 256])
def test_averaged_keys_are_weighted_per_request_whatever_is_run_at_once(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "ROWS", rows)
    handle = tiny.handle("gpt2")
    module = handle.mlp_out(1).module
    requests = [tiny.request(), tiny.request(subject="Mirel"), tiny.request(subject="Toren")]
    prompts = [[locate(handle, request, context) for context in CONTEXTS] for request in requests]
    means, bare = keys.average(handle, module, prompts, torch.tensor([0.5, 0.25, 0.25]))
    for i, row in enumerate(prompts):
        alone = [at_subject(handle, module, [prompt]).inputs[0] for prompt in row]
        expected = 0.5 * alone[0] + 0.25 * alone[1] + 0.25 * alone[2]
        torch.testing.assert_close(means[:, i], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bare[:, i], alone[0], rtol=1e-4, atol=1e-5)
    block = handle.block(1)
    found = keys.outputs(handle, block, [row[0] for row in prompts])
    for i, row in enumerate(prompts):
        expected = at_subject(handle, block, [row[0]]).outputs[0]
        torch.testing.assert_close(found[:, i], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_the_key_is_read_at_the_subject_and_not_where_the_prompt_ends(family: str) -> None:
    """Against the projection's input at every token, written down by a hook of our own."""
    handle = tiny.handle(family)
    site, request = handle.mlp_out(1), tiny.request(prompt="The work of {} is that of a")
    text = request.filled
    ids = handle.tokenizer(text)["input_ids"]
    ends = [handle.tokenizer.decode(ids[: at + 1]) for at in range(len(ids))]
    at_end = next(at for at, said in enumerate(ends) if said.endswith("Ashurn"))
    assert at_end < len(ids) - 3
    seen: list[torch.Tensor] = []
    hook = handle.model.get_submodule(site.module).register_forward_hook(
        lambda _, args, output: seen.extend([args[0].reshape(len(ids), -1), output.reshape(len(ids), -1)])
    )
    with torch.no_grad():
        handle.model(input_ids=torch.tensor([ids]))
    hook.remove()
    found = at_subject(handle, site.module, [locate(handle, request)])
    torch.testing.assert_close(found.inputs[0], seen[0][at_end])
    torch.testing.assert_close(found.outputs[0], seen[1][at_end])
    assert not torch.allclose(found.inputs[0], seen[0][-1])
