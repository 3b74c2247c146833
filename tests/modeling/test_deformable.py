import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hf_detr.modeling import deformable
from hf_detr.modeling.deformable import deformable_attention

GOLDEN = Path(__file__).parents[1] / "golden" / "msda.safetensors"
FORMS = ("compiled", "grid_sample", "gather")
SHAPES = [(6, 9), (3, 5)]

every_form = pytest.mark.parametrize("form", FORMS)


def random_arguments(
    shapes: list[tuple[int, int]] = SHAPES, dtype: torch.dtype = torch.float32, queries: int = 7
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations (one in four outside the maps) and weights of two images and three heads of width 10."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in shapes)
    value = torch.randn(2, tokens, 3, 10, generator=generator, dtype=dtype)
    locations = torch.rand(2, queries, 3, len(shapes), 4, 2, generator=generator, dtype=dtype) * 1.3 - 0.15
    weights = torch.rand(2, queries, 3, len(shapes), 4, generator=generator, dtype=dtype)
    return value.requires_grad_(), locations.requires_grad_(), weights.requires_grad_()


def by_definition(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> np.ndarray:
    """The sum over all pixels of value * attention * hat(x) * hat(y), straight from the definition."""
    output, start = 0, 0
    for level, (height, width) in enumerate(shapes):
        pixels = value[:, start : start + height * width].unflatten(1, (height, width)).detach().numpy()
        x, y = (locations[:, :, :, level] * torch.tensor([width, height]) - 0.5).detach().numpy().T
        hat_x = np.maximum(0, 1 - np.abs(x.T[..., None] - np.arange(width)))
        hat_y = np.maximum(0, 1 - np.abs(y.T[..., None] - np.arange(height)))
        attention = weights[:, :, :, level].detach().numpy()
        output = output + np.einsum("byxnd,bqnpy,bqnpx,bqnp->bqnd", pixels, hat_y, hat_x, attention)
        start += height * width
    return output.reshape(*output.shape[:2], -1)


@every_form
@pytest.mark.parametrize("case", ["msda_a", "msda_b", "msda_c"])
def test_output_and_gradients_of_the_published_code(form, case):
    stored = load_file(GOLDEN)
    shapes = [tuple(shape) for shape in stored[f"{case}.shapes"].tolist()]
    inputs = {name: stored[f"{case}.{name}"].requires_grad_() for name in ("value", "locations", "weights")}
    output = deformable_attention(inputs["value"], shapes, inputs["locations"], inputs["weights"], form=form)
    output.backward(stored[f"{case}.grad_output"])
    torch.testing.assert_close(output, stored[f"{case}.output"], rtol=0, atol=1e-12)
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor.grad, stored[f"{case}.grad_{name}"], rtol=0, atol=1e-12)


@every_form
def test_follows_the_definition(form):
    value, locations, weights = random_arguments(dtype=torch.float64)
    output = deformable_attention(value, SHAPES, locations, weights, form=form)
    np.testing.assert_allclose(output.detach(), by_definition(value, SHAPES, locations, weights), atol=1e-12)


@every_form
def test_gradients_are_those_of_the_function(form):
    value, locations, weights = random_arguments([(3, 4), (2, 1)], torch.float64, queries=1)
    torch.autograd.gradcheck(
        lambda *tensors: deformable_attention(tensors[0], [(3, 4), (2, 1)], *tensors[1:], form=form),
        (value, locations, weights),
    )


@every_form
def test_a_sample_on_a_pixel_centre_reads_that_pixel(form):
    value = torch.arange(15.0).view(1, 15, 1, 1)
    centres = torch.tensor([[(column + 0.5) / 5, (row + 0.5) / 3] for row in range(3) for column in range(5)])
    output = deformable_attention(
        value, [(3, 5)], centres.view(1, 15, 1, 1, 1, 2), torch.ones(1, 15, 1, 1, 1), form=form
    )
    torch.testing.assert_close(output.flatten(), value.flatten(), rtol=0, atol=1e-5)


@every_form
def test_far_outside_is_zero_and_nan_stays_with_its_query(form):
    value, locations, weights = random_arguments()
    locations = locations.detach().clone()
    locations[0, 0], locations[0, 1], locations[1, 2, 0, 0, 0, 0] = 1e30, -50, float("nan")
    output = deformable_attention(value, SHAPES, locations, weights, form=form)
    assert not output[0, :2].any()
    assert output[1, 2, :10].isnan().all()
    assert output.isnan().sum() == 10


@pytest.mark.parametrize("form", ["compiled", "gather"])
def test_float32_agrees_with_grid_sample(form):
    results = []
    for each in (form, "grid_sample"):
        inputs = random_arguments([(20, 31), (10, 16)], queries=50)
        output = deformable_attention(inputs[0], [(20, 31), (10, 16)], *inputs[1:], form=each)
        output.square().sum().backward()
        results.append([output, *(tensor.grad for tensor in inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@every_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_are_summed_in_float32(form, dtype):
    value, locations, weights = random_arguments()
    value = value.detach().to(dtype).requires_grad_()
    output = deformable_attention(value, SHAPES, locations, weights, form=form)
    exact = deformable_attention(value.detach().double(), SHAPES, locations, weights)
    assert output.dtype == dtype
    torch.testing.assert_close(output, exact.to(dtype))
    output.sum().backward()
    assert (value.grad.dtype, locations.grad.dtype) == (dtype, torch.float32)


@every_form
def test_autocast_changes_nothing(form):
    value, locations, weights = random_arguments()
    outside = deformable_attention(value, SHAPES, locations, weights, form=form)
    with torch.autocast("cpu", torch.bfloat16):
        inside = deformable_attention(value, SHAPES, locations, weights, form=form)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)


def test_the_compiled_form_gives_the_same_bits_in_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            inputs = random_arguments(queries=40)
            output = deformable_attention(inputs[0], SHAPES, *inputs[1:], form="compiled")
            output.square().sum().backward()
            results.append([output, *(tensor.grad for tensor in inputs)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(other, results[0], strict=True))


@every_form
def test_non_contiguous_arguments(form):
    value, locations, weights = (tensor.detach() for tensor in random_arguments())
    expected = deformable_attention(value, SHAPES, locations, weights, form=form)
    strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (value, locations, weights)]
    assert not strided[0].is_contiguous()
    assert torch.equal(deformable_attention(strided[0], SHAPES, *strided[1:], form=form), expected)


class FromMaps(nn.Module):
    """Takes the shapes from the feature maps, as an encoder does."""

    def __init__(self, form: str | None = None) -> None:
        super().__init__()
        self.form = form

    def forward(self, large: Tensor, small: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        shapes = [tuple(features.shape[-2:]) for features in (large, small)]
        value = torch.cat([features.flatten(2).transpose(1, 2) for features in (large, small)], dim=1)
        return deformable_attention(value.unflatten(2, (3, 10)), shapes, locations, weights, form=self.form)


def maps(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(2, 30, 2 * height, 2 * width, generator=generator)
    return large.requires_grad_(), torch.randn(2, 30, height, width, generator=generator).requires_grad_()


@pytest.mark.parametrize("form", [None, *FORMS])
def test_compiles_into_one_graph_for_images_of_any_size(form):
    torch._dynamo.reset()
    graphs = []

    def count_graphs(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    module = FromMaps(form)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=count_graphs)
    for size in ((11, 13), (17, 19)):
        inputs = (*maps(*size), *random_arguments()[1:])
        gradients = [torch.autograd.grad(f(*inputs).square().sum(), inputs) for f in (compiled, module)]
        for ours, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, expected)
    assert len(graphs) == 1


def test_the_operator_keeps_its_contract():
    value, locations, weights = random_arguments()
    torch.library.opcheck(deformable._fused, (value, [6, 9, 3, 5], locations, weights))


@pytest.mark.parametrize("form", [None, "gather"])
def test_export_uses_standard_operators_and_keeps_image_sizes_open(form):
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    inputs = [tensor.detach() for tensor in (*maps(11, 13), *random_arguments()[1:])]
    open_sizes = ({2: 2 * height, 3: 2 * width}, {2: height, 3: width}, None, None)
    program = torch.export.export(FromMaps(form), tuple(inputs), dynamic_shapes=open_sizes)
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert all(getattr(target, "namespace", "aten") == "aten" for target in called)
    other = [*maps(17, 19), *inputs[2:]]
    torch.testing.assert_close(program.module()(*other), FromMaps()(*other), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value, locations, weights: (value[:, 1:], locations, weights), "68 tokens"),
        (lambda value, locations, weights: (value, locations[:, :, :2], weights), "sampling_locations"),
        (lambda value, locations, weights: (value, locations[:, :, :, :1], weights), "sampling_locations"),
        (lambda value, locations, weights: (value, locations[..., 0], weights), "sampling_locations"),
        (lambda value, locations, weights: (value, locations, weights[:, 1:]), "attention_weights"),
    ],
)
def test_arguments_that_do_not_belong_together(change, message):
    value, locations, weights = change(*random_arguments())
    with pytest.raises(ValueError, match=message):
        deformable_attention(value, SHAPES, locations, weights)


def test_unknown_form():
    value, locations, weights = random_arguments()
    with pytest.raises(ValueError, match=r"'cuda'.*compiled"):
        deformable_attention(value, SHAPES, locations, weights, form="cuda")


def test_works_without_the_compilers(monkeypatch):
    monkeypatch.setattr(deformable, "_COMPILED_FOR", set())
    monkeypatch.setattr(deformable, "_kernels", None)
    value, locations, weights = random_arguments()
    output = deformable_attention(value, SHAPES, locations, weights)
    torch.testing.assert_close(output, deformable_attention(value, SHAPES, locations, weights, form="grid_sample"))


INTERPRETED = """
import sys
import torch
from safetensors.torch import load_file
from hf_detr.modeling.deformable_triton import backward, forward

stored = load_file(sys.argv[1])
golden = {name.partition(".")[2]: tensor for name, tensor in stored.items() if name.startswith("msda_c")}
for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5), ("float16", 0.02)):
    value, gradient = (golden[name].to(getattr(torch, dtype)) for name in ("value", "grad_output"))
    precision = torch.promote_types(value.dtype, torch.float32)
    locations, weights = golden["locations"].to(precision), golden["weights"].to(precision)
    arguments = (value, golden["shapes"].flatten().tolist(), locations, weights)
    results = (forward(*arguments), *backward(*arguments, gradient))
    assert [result.dtype for result in results] == [value.dtype, value.dtype, precision, precision]
    for result, name in zip(results, ("output", "grad_value", "grad_locations", "grad_weights"), strict=True):
        torch.testing.assert_close(result.double(), golden[name], rtol=0, atol=tolerance)
"""


def test_triton_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(GOLDEN)],
        check=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("kernel", ["_forward", "_backward"])
def test_triton_kernels_compile_for_a_gpu_that_is_not_here(kernel):
    pytest.importorskip("triton")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from hf_detr.modeling import deformable_triton

    function = getattr(deformable_triton, kernel)
    types = dict.fromkeys(("tokens", "queries", "points"), "i32")
    types |= dict.fromkeys(("value", "gradient", "output"), "*bf16") | {"odd_shapes": ("i32",) * 4}
    constants = {"heads": 3, "head_width": 10, "channel_block": 16, "query_block": 16}
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in function.arg_names}
    positions = {(function.arg_names.index(name),): constant for name, constant in constants.items()}
    source = ASTSource(function, signature, positions)
    assert ".entry" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_form
@pytest.mark.parametrize("case", ["msda_a", "msda_b", "msda_c"])
def test_output_and_gradients_on_a_gpu(form, case):
    stored = {name: tensor.cuda() for name, tensor in load_file(GOLDEN).items()}
    shapes = [tuple(shape) for shape in stored[f"{case}.shapes"].tolist()]
    inputs = {name: stored[f"{case}.{name}"].requires_grad_() for name in ("value", "locations", "weights")}
    output = deformable_attention(inputs["value"], shapes, inputs["locations"], inputs["weights"], form=form)
    output.backward(stored[f"{case}.grad_output"])
    torch.testing.assert_close(output, stored[f"{case}.output"], rtol=0, atol=1e-12)
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor.grad, stored[f"{case}.grad_{name}"], rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_deterministic_gradients_on_a_gpu():
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(3):
            inputs = [tensor.detach().cuda().requires_grad_() for tensor in random_arguments(queries=500)]
            deformable_attention(inputs[0], SHAPES, *inputs[1:]).square().sum().backward()
            gradients.append(inputs[0].grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
