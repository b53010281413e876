"""TIES-merging against a calculation entry by entry."""

import torch

from editsafety.editors.wise import ties


def by_hand(differences: list[list[float]], density: float) -> list[float]:
    kept = []
    for row in differences:
        order = sorted(range(len(row)), key=lambda i: -abs(row[i]))[: int(density * len(row))]
        kept.append([value if i in order else 0.0 for i, value in enumerate(row)])
    found = []
    for values in zip(*kept, strict=True):
        wanted = [value for value in values if (value > 0 if sum(values) >= 0 else value < 0)]
        found.append(sum(wanted) / len(wanted) if wanted else 0.0)
    return found


def test_a_merge_is_the_calculation_entry_by_entry() -> None:
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    found = ties.merge(rows.reshape(3, 5, 8), 0.53)
    torch.testing.assert_close(found.flatten(), torch.tensor(by_hand(rows.tolist(), 0.53)))
    assert found.shape == (5, 8)


def test_the_heavier_sign_wins_and_small_entries_do_not_count() -> None:
    differences = torch.tensor([[[3.0, 0.5, -1.0, 2.0]], [[-1.0, 4.0, 0.1, 2.0]], [[-1.0, 0.2, -2.0, -9.0]]])
    assert ties.merge(differences, 0.5).tolist() == [[3.0, 4.0, -2.0, -9.0]]


def test_one_difference_at_full_density_is_itself() -> None:
    alone = torch.tensor([[[1.0, -2.0], [0.0, 4.0]]], dtype=torch.bfloat16)
    assert torch.equal(ties.merge(alone, 1.0), alone[0])
