"""A model on several devices: its map, its hooks, and what of it is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

from editsafety.editing.targets import optimise
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.engine.layers import stands_alone
from editsafety.errors import ModelError, UsageError
from editsafety.lab.provenance import of_model
from editsafety.lab.worker_count import pick_workers
from editsafety.model import loading, placement, room
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from tests import tiny
from tests.engine.test_above import CONTEXTS, REQUEST, SETTINGS
from tests.two_devices import hooked, places_of

CPU = torch.device("cpu")
CARDS = (torch.device("cuda:0"), torch.device("cuda:1"))
MAP = '{"model.layers.0": 0, "model.layers.1": "cuda:1", "": "cpu"}'


def texts_of(handle: ModelHandle) -> torch.Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids(one) for one in tiny.SENTENCES[:3]]))


def test_a_map_is_a_name_an_object_or_a_file_with_one(tmp_path: Path) -> None:
    for name in ("auto", "balanced", "balanced_low_0", "sequential"):
        assert placement.read_map(name) == name
    path = tmp_path / "map.json"
    path.write_text(MAP)
    expected = {"model.layers.0": "cuda:0", "model.layers.1": "cuda:1", "": "cpu"}
    assert placement.read_map(MAP) == placement.read_map(str(path)) == expected
    assert placement.devices_of(MAP) == (*CARDS, CPU)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("automatic", r"device map 'automatic' is not auto, balanced, .* a JSON object or a file"),
        ('{"model": 0', r"a device map: is no JSON .* It looks like \{\"model.layers.0\": 0"),
        ("{}", r"is \{\}, expected an object of modules"),
        ('{"model": "gpu"}', r"sends 'model' to 'gpu', which is no device\. Give a number"),
        ('{"model": true}', r"sends 'model' to True"),
    ],
)
def test_a_map_that_is_none_is_refused_with_what_is_expected(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        placement.read_map(given)


def test_a_device_and_a_map_are_not_given_together() -> None:
    with pytest.raises(UsageError, match=r"device 'cuda:1' and a device map: give one of them"):
        ModelHandle.load(ModelSpec("pocket-neo", "cuda:1", device_map="auto"))


def test_a_card_of_a_map_that_is_not_here_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'cuda:7' is not available here|this process sees"):
        loading.devices_of(ModelSpec("pocket-neo", device_map='{"": 7}'))


@pytest.mark.parametrize("given", ["auto", "sequential", '{"": "cpu"}'])
def test_a_model_from_a_folder_is_the_same_wherever_its_map_puts_it(given: str, tmp_path: Path) -> None:
    folder = str(tiny.folder(tmp_path / "model"))
    plain = ModelHandle.load(ModelSpec(folder, "cpu"))
    placed = ModelHandle.load(ModelSpec(folder, device_map=given))
    assert (placed.identity, placed.devices, placed.reloadable) == (plain.identity, (CPU,), True)
    assert torch.equal(texts_of(placed), texts_of(plain))


def test_random_models_and_those_of_a_function_are_placed_as_well(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from tests import tiny\nfrom tests.two_devices import hooked\n\n\n"
        'def plain():\n    return tiny.model("gpt2"), tiny.tokenizer()\n\n\n'
        'def placed():\n    return hooked(tiny.model("gpt2")).model, tiny.tokenizer()\n'
    )
    handles = [
        ModelHandle.load(ModelSpec(f"{tmp_path / 'made.py'}:{name}", device_map=given))
        for name, given in (("plain", '{"": "cpu"}'), ("placed", "auto"), ("placed", None))
    ]
    assert [placement.is_spread(one.model) for one in handles] == [False, True, True]
    assert len({one.identity for one in handles}) == 1
    random = f"random:{tiny.config_folder(tmp_path / 'config')}"
    assert ModelHandle.load(ModelSpec(random, device_map="auto")).devices == (CPU,)


def test_a_map_that_leaves_a_part_out_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(str(tiny.folder(tmp_path / "model")), device_map='{"transformer.h": "cpu"}')
    with pytest.raises(ModelError, match="the device map does not fit model: "):
        ModelHandle.load(spec)


@pytest.mark.parametrize(("here", "away"), [("cuda:0", "cpu"), ("cuda:0", "disk"), ("cpu", "disk")])
def test_a_map_that_offloads_is_refused_before_anything_is_loaded(here: str, away: str) -> None:
    model = tiny.model("gpt2")
    given = json.dumps(places_of(model, here, away))
    where = "the CPU" if here == "cpu" and away == "disk" else here
    said = f"model does not fit on ({where}|cpu): .* more modules would be offloaded, and an edit cannot be written"
    with pytest.raises(ModelError, match=said):
        placement.lay_out(model, given, torch.float32, "model")


def test_what_does_not_fit_on_the_cards_is_told_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cards are accelerate's to count; what it says of two that hold a fifth of the model each is given to it."""
    model = tiny.model("gpt2", tied=False)
    size = sum(one.numel() * 4 for one in model.parameters())
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda *_: {0: size // 5, 1: size // 5, "cpu": size})
    with pytest.raises(ModelError, match=r"does not fit on cuda:0.* would be offloaded"):
        placement.lay_out(model, "sequential", torch.float32, "model")
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda *_: {0: size * 3 // 4, 1: size * 3 // 4, "cpu": size})
    found = placement.lay_out(model, "sequential", torch.float32, "model")
    assert set(found.values()) == {"cuda:0", "cuda:1"}


def test_tied_weights_go_to_one_device() -> None:
    model = tiny.model("gpt2", tied=True)
    given = json.dumps(places_of(model, "cuda:0", "cuda:1"))
    with pytest.raises(ModelError, match=r"one weight of model to two devices \(.*lm_head.*Give both the same"):
        placement.lay_out(model, given, torch.float32, "model")


def test_without_accelerate_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UsageError, match=r"needs accelerate, .*: pip install 'editsafety\[big\]'"):
        placement.lay_out(tiny.model("gpt2"), "auto", torch.float32, "model")


@pytest.mark.parametrize("offload", [accelerate.cpu_offload, accelerate.cpu_offload_with_hook])
def test_weights_that_are_brought_in_for_a_pass_cannot_be_edited(offload: Callable[..., Any]) -> None:
    """With a card they would be brought to it; here the CPU takes its part, the hooks are accelerate's own."""
    model = tiny.model("gpt2")
    offload(model, execution_device=CPU)
    with pytest.raises(ModelError, match=r"of odd is offloaded: .* an edit cannot be written into them"):
        ModelHandle.of(model, tiny.tokenizer(), name="odd")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_accelerates_hooks_are_part_of_the_model_and_no_finding(family: str) -> None:
    plain, handle = tiny.handle(family, tied=False), hooked(tiny.model(family, tied=False))
    assert placement.is_spread(handle.model)
    assert not placement.is_spread(plain.model)
    before = texts_of(handle)
    assert torch.equal(before, texts_of(plain))
    edit = Edit("own", (), handle.identity, deltas=(tiny.low_rank(handle.mlp_out(1)),))
    with EditSession(handle) as session:
        session.apply(edit)
        changed = texts_of(handle)
    assert session.leftovers == ()
    assert not torch.equal(changed, before)
    assert torch.equal(texts_of(handle), before)
    with EditSession(plain) as session:
        session.apply(edit)
        assert torch.equal(texts_of(plain), changed)


@pytest.mark.parametrize("place", ["projection", "block"])
def test_shortcuts_hold_behind_accelerates_hooks_bit_for_bit(place: str) -> None:
    """The stand-ins take the place of a module with its hook; what comes to the next one its own hook moves."""
    handle = hooked(tiny.model("llama"))
    assert stands_alone(handle)
    module = handle.mlp_out(1).module if place == "projection" else handle.block(1)
    found = optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    with handle.engine.switched_off():
        expected = optimise(handle, module, REQUEST, CONTEXTS, SETTINGS)
    assert torch.equal(found.value, expected.value)
    assert found.steps == expected.steps > 0


def test_memory_and_workers_go_by_all_devices_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Card", (), {"total_memory": 12 << 30}))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (11 << 30, 12 << 30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    spec = ModelSpec("random:gpt2-xl", dtype="auto", device_map="auto")
    assert loading.devices_of(spec) == CARDS
    assert room.named(CARDS) == "cuda x 2"
    assert (room.whole_memory(*CARDS), room.free_memory(*CARDS)) == (24 << 30, 22 << 30)
    taken = [room.settled(spec, devices).dtype for devices in (CARDS, CARDS[:1])]
    assert taken == ["float32", "bfloat16"]  # 1.56 billion numbers take 11.6 GiB with what an edit needs
    picked = pick_workers([spec], 2)
    assert (picked.count, picked.why) == (1, "the model is spread over 2 devices")


def test_what_a_model_is_on_is_in_its_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    assert of_model(handle).device == "cpu"
    monkeypatch.setattr(ModelHandle, "devices", CARDS)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    assert of_model(handle).device == "Card 0 + Card 1"
