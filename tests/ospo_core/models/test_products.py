from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ospo_core.models import products
from ospo_core.models.products import ReorderedLinear, add_linear, add_times_, linear, reorder_linears


def made_up(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


@pytest.mark.parametrize("shape", [(1, 24), (5, 24), (3, 4, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_products_are_those_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    states, weight, bias = (made_up(*size).to(dtype) for size in (shape, (40, 24), (40,)))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-1
    for _ in range(2):
        assert torch.allclose(linear(states, weight, bias), functional.linear(states, weight, bias), atol=tolerance)
    flat = states.flatten(0, -2)
    base = made_up(len(flat), 40).to(dtype)
    assert torch.allclose(add_linear(base, flat, weight), base + flat @ weight.T, atol=tolerance)
    for _ in range(2):
        summed = flat + base @ weight
        assert torch.allclose(
            add_times_(flat.clone(), base, weight), summed, atol=tolerance * summed.abs().max().item()
        )


def test_weights_changed_in_place_are_reordered_again() -> None:
    weight, states = made_up(8, 24), made_up(2, 24)
    with torch.inference_mode():
        linear(states, weight)
        add_times_(states.clone(), made_up(2, 8), weight)
    weight.mul_(2)
    with torch.no_grad():
        assert torch.allclose(linear(states, weight), states @ weight.T, atol=1e-5)
        back = add_times_(states.clone(), made_up(2, 8), weight)
        assert torch.allclose(back, states + made_up(2, 8) @ weight, atol=1e-5)


def test_gradients_flow_where_they_are_recorded() -> None:
    weight = made_up(8, 24).requires_grad_()
    linear(made_up(2, 24), weight).sum().backward()
    assert weight.grad is not None


def test_no_more_than_so_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, states = made_up(9, 24), made_up(2, 24)
    monkeypatch.setattr(products, "LARGEST", 0)
    with torch.inference_mode():
        assert linear(states, weight).equal(functional.linear(states, weight))
        assert add_times_(states.clone(), made_up(2, 9), weight).equal(torch.addmm(states, made_up(2, 9), weight))
    assert weight not in products._packed


def test_a_networks_linear_layers_compute_the_same_and_keep_their_names() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 3, bias=False))
    states, names = made_up(5, 24), list(network.state_dict())
    expected = network(states)
    reorder_linears(network)
    assert [type(module) for module in network] == [ReorderedLinear, torch.nn.GELU, ReorderedLinear]
    assert list(network.state_dict()) == names
    with torch.inference_mode():
        torch.testing.assert_close(network(states), expected.detach(), rtol=1e-5, atol=1e-5)
    assert network(states).equal(expected)
