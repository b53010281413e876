"""Surroundings: settings of torch and of the process that a model's answers depend on, or that its user does.

They are read before somebody else's code runs, told apart afterwards, and set again.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, optim
from torch.utils import _python_dispatch as dispatch

from editsafety.edits.process_settings import of_process
from editsafety.edits.setting import Setting, spelled
from editsafety.edits.states import same

MODULE_HOOKS = (
    "_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks",
    "_global_forward_hooks_with_kwargs", "_global_forward_hooks_always_called", "_global_buffer_registration_hooks",
    "_global_module_registration_hooks", "_global_parameter_registration_hooks",
)  # fmt: skip
OPTIMIZER_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


@dataclass(frozen=True)
class Surroundings:
    """Every setting as it was, and the registries of hooks and functions that all models share."""

    settings: tuple[tuple[Setting, Any], ...]
    registries: tuple[tuple[str, dict[Any, Any], dict[Any, Any]], ...]

    @classmethod
    def now(cls) -> Surroundings:
        """Remember everything now."""
        registries = tuple((name, mapping, dict(mapping.items())) for name, mapping in _registries())
        return cls(tuple((setting, setting.value()) for setting in _settings()), registries)

    def findings(self) -> tuple[str, ...]:
        """One sentence for each thing that is not as it was; nothing is touched."""
        found = [
            f"{setting.name} changed{setting.tell(was, now)}"
            for setting, was in self.settings
            if not _equal(now := setting.value(), was)
        ]
        found += [f"{name} were changed" for name, mapping, kept in self.registries if not same(mapping, kept)]
        return tuple(found)

    @property
    def rewired(self) -> bool:
        """Whether the registries are others: hooks for every module, functions that are looked up by name."""
        return not all(same(mapping, kept) for _, mapping, kept in self.registries)

    def put_back(self) -> tuple[str, ...]:
        """Set again what can be set, one after the other, and say it: under a mode the next ones might not be read."""
        found = list(self.settle())
        for name, mapping, kept in self.registries:
            if not same(mapping, kept):
                found.append(f"{name} were changed")
                mapping.clear()
                mapping.update(kept)
        return tuple(found)

    def settle(self) -> tuple[str, ...]:
        """Set the settings again and leave the registries: what stands in those may run beside a model."""
        found = []
        for setting, was in self.settings:
            if _equal(now := setting.value(), was):
                continue
            found.append(f"{setting.name} changed{setting.tell(was, now)}")
            if setting.write is not None:
                with suppress(RuntimeError, OSError, ValueError):  # it is still another one, and will be said to be
                    setting.write(was)
        return tuple(found)


def _equal(now: Any, was: Any) -> bool:
    return now is was or (type(now) is type(was) and bool(now == was))


def arithmetic() -> dict[str, str]:
    """The settings that torch computes by, spelled: under other ones the same computation may give other bits."""
    return {setting.name: spelled(setting.value()) for setting in _arithmetic()}


def _settings() -> list[Setting]:
    return [*_arithmetic(), *of_process()]


def _arithmetic() -> list[Setting]:
    return [*_of_torch(), *_of_autocast(), *_of_backends()]


def _of_torch() -> list[Setting]:
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled,
        torch.is_deterministic_algorithms_warn_only_enabled,
    )
    return [
        Setting("torch's modes over functions", _function_modes, _set_function_modes),
        Setting("torch's modes over operators", _operator_modes, _set_operator_modes),
        Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Setting("torch's inference mode", torch.is_inference_mode_enabled),
        Setting(
            "torch's deterministic algorithms",
            lambda: (deterministic(), warn_only()),
            lambda was: torch.use_deterministic_algorithms(was[0], warn_only=was[1]),
        ),
        Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        Setting("torch's functions for subclasses", torch._C._is_torch_function_enabled),
        Setting("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        Setting(
            "torch's hooks on saved tensors",
            lambda: torch._C._autograd._top_saved_tensors_default_hooks(True),
            lambda was: torch._C._autograd._pop_saved_tensors_default_hooks() if was is None else None,
        ),
        Setting(
            "torch's gradients by several threads",
            torch._C._is_multithreading_enabled,
            torch._C._set_multithreading_enabled,
        ),
        Setting("whether torch rounds denormal numbers to zero", _flushes, torch.set_flush_denormal),
        Setting(
            "torch's full backward hooks",
            lambda: nn.modules.module._global_is_full_backward_hook,
            lambda was: setattr(nn.modules.module, "_global_is_full_backward_hook", was),
        ),
    ]


def _flushes() -> bool:
    return not torch.full((1,), 1e-310, dtype=torch.float64).mul(0.5).count_nonzero()


def _function_modes() -> tuple[Any, ...]:
    return tuple(torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack()))


def _set_function_modes(was: tuple[Any, ...]) -> None:
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    for mode in was:
        torch._C._push_on_torch_function_stack(mode)


def _operator_modes() -> tuple[Any, ...]:
    return tuple(dispatch._get_current_dispatch_mode_stack())


def _set_operator_modes(was: tuple[Any, ...]) -> None:
    while _operator_modes():
        dispatch._pop_mode()
    for mode in was:
        dispatch._push_mode(mode)


def _of_autocast() -> list[Setting]:
    def nesting() -> int:
        torch.autocast_increment_nesting()
        return torch.autocast_decrement_nesting()

    def nest(was: int) -> None:
        while nesting() > was:
            torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()  # copies of weights in a narrower type, which would outlive an edit

    found = [
        Setting("torch's nesting of autocast", nesting, nest),
        Setting("torch's cache of autocast", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    ]
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        found += [
            Setting(
                f"torch's autocast on {device}",
                lambda d=device: torch.is_autocast_enabled(d),  # type: ignore[misc]
                lambda was, d=device: torch.set_autocast_enabled(d, was),  # type: ignore[misc]
            ),
            Setting(
                f"torch's dtype of autocast on {device}",
                lambda d=device: torch.get_autocast_dtype(d),  # type: ignore[misc]
                lambda was, d=device: torch.set_autocast_dtype(d, was),  # type: ignore[misc]
            ),
        ]
    return found


def _of_backends() -> list[Setting]:
    def flag(owner: Any, name: str, said: str) -> Setting:
        return Setting(said, lambda: getattr(owner, name), lambda was: setattr(owner, name, was))

    cuda, backends = torch.backends.cuda, torch.backends
    found = [
        Setting(
            "torch's precision of float32 products",
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        flag(backends.mkldnn, "enabled", "whether torch uses oneDNN"),
        flag(backends.cudnn, "enabled", "whether torch uses cuDNN"),
        flag(backends.cudnn, "benchmark", "cuDNN's benchmark mode"),
        flag(backends.cudnn, "deterministic", "cuDNN's deterministic mode"),
        flag(backends.cudnn, "allow_tf32", "cuDNN's use of TF32"),
        flag(cuda.matmul, "allow_tf32", "cuBLAS's use of TF32"),
        flag(cuda.matmul, "allow_fp16_reduced_precision_reduction", "cuBLAS's sums in float16"),
        flag(cuda.matmul, "allow_bf16_reduced_precision_reduction", "cuBLAS's sums in bfloat16"),
    ]
    kernels = {"flash": "flash", "mem_efficient": "memory-efficient", "math": "plain", "cudnn": "cuDNN's"}
    for kernel, said in kernels.items():
        enabled = getattr(cuda, f"{kernel}_sdp_enabled", None)
        if enabled is not None:
            enable = getattr(cuda, f"enable_{kernel}_sdp")
            found.append(Setting(f"whether torch uses {said} attention", enabled, enable))
    if torch.cuda.is_available():
        found.append(Setting("torch's current GPU", torch.cuda.current_device, torch.cuda.set_device))
    return found


def _registries() -> list[tuple[str, dict[Any, Any]]]:
    """Hooks that torch calls for every module or optimizer; functions that transformers looks up by name."""
    found = [(f"torch's {_words(name)}", vars(nn.modules.module).get(name)) for name in MODULE_HOOKS]
    optimizers = sys.modules[optim.Optimizer.__module__]
    found += [(f"torch's {_words(name)}", vars(optimizers).get(name)) for name in OPTIMIZER_HOOKS]
    for module, name, said in (
        ("transformers.activations", "ACT2FN", "activations by name"),
        ("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS", "attention functions by name"),
        ("transformers.masking_utils", "ALL_MASK_ATTENTION_FUNCTIONS", "attention masks by name"),
    ):
        shared = getattr(sys.modules.get(module), name, None)
        found += [(f"transformers' {said}", one) for one in (shared, *_mappings(shared))]
    return [(name, mapping) for name, mapping in found if isinstance(mapping, dict)]


def _mappings(shared: Any) -> tuple[Any, ...]:
    return getattr(type(shared), "_global_mapping", None), getattr(shared, "_local_mapping", None)


def _words(name: str) -> str:
    return name.strip("_").replace("_", " ")
