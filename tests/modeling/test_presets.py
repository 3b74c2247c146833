"""What holds for every preset, each with all its choices and small sizes."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny import NUM_LABELS, images, labels, scenes, tiny_config, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForObjectDetection, pipeline

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor, HfDetrModel, available_presets
from hf_detr.modeling.losses import TERMS
from hf_detr.modeling.presets import get_preset
from stages import ARCHITECTURES

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
PRESETS = available_presets()
DENOISING = [preset for preset in PRESETS if HfDetrConfig.from_preset(preset).denoising != "none"]


@pytest.fixture(params=PRESETS)
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


def padding_mask(count: int, height: int, width: int) -> Tensor:
    """A (count, height, width) mask: the first image is whole, the others are smaller and smaller."""
    mask = torch.zeros(count, height, width, dtype=torch.int64)
    for index in range(count):
        mask[index, : height - 16 * index, : width - 24 * index] = 1
    return mask


def matching_loss(model: HfDetrForObjectDetection, loss_dict: dict[str, Tensor]) -> Tensor:
    """The weighted sum of all terms but those of the denoising queries."""
    return sum(
        getattr(model.config, term.weight) * value
        for term_name, term in TERMS.items()
        for name, value in loss_dict.items()
        if term.weight and name.startswith(term_name) and "_dn" not in name
    )


def test_shapes(preset: str):
    model, pixel_values, annotations = tiny_model(preset), images(2), labels(2, 3)
    config = model.config
    num_classes = NUM_LABELS + (config.classification == "softmax")
    with torch.no_grad():
        outputs = model(pixel_values)
    assert outputs.logits.shape == (2, config.num_queries, num_classes)
    assert outputs.pred_boxes.shape == (2, config.num_queries, 4)
    assert outputs.pred_boxes.min() >= 0
    assert outputs.pred_boxes.max() <= 1
    assert outputs.last_hidden_state.shape == (2, config.num_queries, config.d_model)
    assert outputs.loss is None
    assert outputs.auxiliary_outputs is None
    outputs = model.train()(pixel_values, labels=annotations)
    assert outputs.loss.shape == ()
    assert outputs.logits.shape == (2, config.num_queries, num_classes)  # denoising queries are not predictions
    assert [a["pred_boxes"].shape for a in outputs.auxiliary_outputs] == [outputs.pred_boxes.shape]


def test_every_parameter_is_trained_or_frozen_as_published(preset: str):
    """A gradient within three steps: what starts at zero lets none through in the first."""
    # in float64, where a zero gradient is not drowned by rounding; with several channels per group of the group norms
    model = tiny_model(preset, d_model=64, **NO_DROPOUT).double().train()
    trained, frozen = set(), {name for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        model(images(2).double(), labels=labels(2, 3)).loss.backward()
        optimizer.step()
        trained |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-12}
    body = "model.backbone.body."
    if model.config.frozen_stages == 1:  # the stem and the first stage of a ResNet
        assert {name.removeprefix(body).split(".")[0] for name in frozen} == {"conv1", "layer1"}
    else:
        assert not frozen
    untrained = {name for name, _ in model.named_parameters()} - trained - frozen
    assert untrained == never_trained(model)


def never_trained(model: HfDetrForObjectDetection) -> set[str]:
    """Parameters that cannot matter, in the published models as well.

    A softmax does not notice what is added to all its inputs: the bias of the keys. And queries without content are
    all alike in the first decoder layer: whatever the weights of its self-attention, the mean of equal values is that
    value.
    """
    names = [name for name, _ in model.named_parameters()]
    untrained = {name for name in names if "_attn.k_" in name and name.endswith("bias")}
    if model.config.query_content == "zeros" and model.config.denoising == "none":
        prefix = "model.decoder.layers.0.self_attn."
        untrained |= {name for name in names if name.startswith((f"{prefix}q_", f"{prefix}k_"))}
        untrained.add(f"{prefix}v_proj.weight")
    return untrained


def test_a_batch_gives_what_its_images_give(preset: str):
    """On the same canvas, padding included, no image has a part in the predictions of another."""
    model = tiny_model(preset).double()
    pixel_values, mask = images(3, 96, 128).double(), padding_mask(3, 96, 128)
    with torch.no_grad():
        together = model(pixel_values * mask[:, None], mask)
        for index in range(3):
            alone = model((pixel_values * mask[:, None])[index : index + 1], mask[index : index + 1])
            torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=0, atol=1e-9)
            torch.testing.assert_close(together.pred_boxes[index], alone.pred_boxes[0], rtol=0, atol=1e-9)


def test_a_full_mask_is_no_mask(preset: str):
    model, pixel_values = tiny_model(preset).double(), images(2).double()
    with torch.no_grad():
        without, with_mask = model(pixel_values), model(pixel_values, torch.ones(2, 96, 96, dtype=torch.int64))
    torch.testing.assert_close(without.logits, with_mask.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(without.pred_boxes, with_mask.pred_boxes, rtol=0, atol=1e-5)


def test_the_order_of_queries_means_nothing(preset: str):
    """The decoder is equivariant: permuted queries give permuted predictions."""
    model = tiny_model(preset).model.double()
    order = torch.randperm(model.config.num_queries, generator=torch.Generator().manual_seed(0))

    def decode(permute: bool) -> tuple[Tensor, Tensor]:
        memory = model.encoder(model.backbone(images(2).double(), None)[0])
        queries = model.queries(memory)
        if model.denoising is not None:
            queries = model.denoising(queries, None)
        if permute:
            for name in ("content", "position", "reference_points"):
                value = getattr(queries, name)
                setattr(queries, name, None if value is None else value[:, order])
        predictions = model.decoder(queries, memory, model.heads, all_layers=False).predictions
        return predictions.logits[-1], predictions.boxes[-1]

    with torch.no_grad():
        for plain, permuted in zip(decode(False), decode(True), strict=True):
            torch.testing.assert_close(plain[:, order], permuted, rtol=0, atol=1e-9)


def test_saving_and_loading(preset: str, tmp_path: Path):
    model, pixel_values = tiny_model(preset), images(2)
    model.save_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".py"}
    loaded = AutoModelForObjectDetection.from_pretrained(tmp_path)
    assert type(loaded) is HfDetrForObjectDetection
    assert not loaded.training
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == model.config.to_diff_dict()
    assert_same_tensors(model, loaded)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in loaded.parameters()]
    with torch.no_grad():
        # equal tensors at other addresses may be summed in another order
        torch.testing.assert_close(model(pixel_values).logits, loaded(pixel_values).logits, rtol=0, atol=1e-5)


def assert_same_tensors(model: torch.nn.Module, loaded: torch.nn.Module) -> None:
    """Every parameter and buffer is equal, those that are not saved included."""
    expected = dict(model.named_parameters()) | dict(model.named_buffers())
    found = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_loading_onto_a_device_map(preset: str, tmp_path: Path):
    model = tiny_model(preset)
    model.save_pretrained(tmp_path)
    assert_same_tensors(model, HfDetrForObjectDetection.from_pretrained(tmp_path, device_map="cpu"))


def test_what_a_file_lacks_is_initialised(preset: str, tmp_path: Path):
    """A base model loaded with the head of the task, and one without any weight."""
    model = tiny_model(preset)
    with torch.device("meta"):
        empty = HfDetrForObjectDetection(model.config)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    model.model.save_pretrained(tmp_path)
    assert_same_tensors(model, HfDetrForObjectDetection.from_pretrained(tmp_path))
    assert_same_tensors(model.model, AutoModel.from_pretrained(tmp_path))

    torch.manual_seed(1)
    fresh, info = HfDetrForObjectDetection.from_pretrained(
        None, config=model.config, state_dict={"unknown": torch.zeros(1)}, output_loading_info=True
    )
    assert info["missing_keys"]
    prior = fresh.model.heads.class_head[0].bias
    expected = 0.0 if model.config.classification == "softmax" else -4.59512
    torch.testing.assert_close(prior, torch.full_like(prior, expected))
    for name, tensor in [*fresh.named_parameters(), *fresh.named_buffers()]:
        assert tensor.isfinite().all(), name
        assert tensor.float().abs().max() < 1000, name  # uninitialised memory would show
    with torch.no_grad():
        assert fresh(images(1)).logits.isfinite().all()


def test_new_classes(preset: str, tmp_path: Path):
    model = tiny_model(preset)
    model.save_pretrained(tmp_path)
    changed = HfDetrForObjectDetection.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert changed.config.num_labels == len(changed.config.id2label) == 7
    with torch.no_grad():
        logits = changed(images(1)).logits
    assert logits.shape[-1] == 7 + (model.config.classification == "softmax")
    if model.config.classification == "focal":
        torch.testing.assert_close(changed.model.heads.class_head[0].bias, torch.full((7,), -4.59512))
    kept = changed.model.heads.box_head[0].layers[0].weight
    assert torch.equal(kept, model.model.heads.box_head[0].layers[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(preset: str, dtype: torch.dtype):
    """The bound is a few units in the last place of the type after a dozen layers.

    Where queries are selected, all tokens are: rounding could make another token the last of a few.
    """
    selects = get_preset(preset).get("query_reference") == "selected"
    model = tiny_model(preset, **({"num_queries": 1000} if selects else {}))
    pixel_values, mask = images(2), padding_mask(2, 96, 96)
    with torch.no_grad():
        expected = model(pixel_values, mask)
        outputs = model.to(dtype)(pixel_values.to(dtype), mask)
    assert outputs.logits.dtype == dtype
    assert outputs.pred_boxes.dtype == torch.float32
    tolerance = 30 * torch.finfo(dtype).eps
    memory, expected_memory = outputs.encoder_last_hidden_state.float(), expected.encoder_last_hidden_state
    assert (memory - expected_memory).abs().mean() < tolerance
    # rounding may change the order of selected queries, not what they say together
    assert outputs.logits.isfinite().all()
    assert outputs.pred_boxes.isfinite().all()
    assert (outputs.logits.float().mean() - expected.logits.mean()).abs() < 3 * tolerance
    assert (outputs.pred_boxes.mean(1) - expected.pred_boxes.mean(1)).abs().max() < tolerance


def test_pipeline(preset: str, tmp_path: Path):
    from PIL import Image

    tiny_model(preset).save_pretrained(tmp_path)
    HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(tmp_path)
    detector = pipeline("object-detection", model=str(tmp_path), device="cpu")
    assert type(detector.image_processor) is HfDetrImageProcessor
    pictures = [Image.new("RGB", size, "red") for size in ((80, 60), (60, 80), (100, 40))]
    single = [detector(picture, threshold=0.0) for picture in pictures]
    assert [len(detections) for detections in single] == [len(d) for d in detector(pictures, threshold=0.0)]
    for detections, picture in zip(single, pictures, strict=True):
        assert set(detections[0]) == {"score", "label", "box"}
        assert all(d["label"] in detector.model.config.id2label.values() for d in detections)
        assert all(-picture.width <= d["box"]["xmin"] <= 2 * picture.width for d in detections)
    same_size = [Image.new("RGB", (80, 60), colour) for colour in ("red", "blue")]
    batched = detector(same_size, threshold=0.0, batch_size=2)
    alone = [detector(picture, threshold=0.0) for picture in same_size]
    for together, apart in zip(batched, alone, strict=True):
        assert sorted(d["score"] for d in together) == pytest.approx(sorted(d["score"] for d in apart), abs=1e-4)


def test_eager_attention_is_sdpa(preset: str):
    pixel_values, mask = images(2).double(), padding_mask(2, 96, 96)
    with torch.no_grad():
        eager = tiny_model(preset, attn_implementation="eager").double()(pixel_values, mask)
        sdpa = tiny_model(preset, attn_implementation="sdpa").double()(pixel_values, mask)
    torch.testing.assert_close(eager.logits, sdpa.logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(eager.pred_boxes, sdpa.pred_boxes, rtol=0, atol=1e-9)


def test_hidden_states_and_attentions(preset: str):
    model = tiny_model(preset, attn_implementation="eager", encoder_layers=2, decoder_layers=3)
    config = model.config
    with torch.no_grad():
        outputs = model(images(2), output_hidden_states=True, output_attentions=True)
        plain = model(images(2))
    assert plain.encoder_hidden_states is plain.decoder_hidden_states is plain.cross_attentions is None
    tokens, heads = outputs.encoder_last_hidden_state.shape[1], config.decoder_attention_heads
    assert [s.shape for s in outputs.encoder_hidden_states] == [(2, tokens, config.d_model)] * 3
    assert torch.equal(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)
    assert [s.shape for s in outputs.decoder_hidden_states] == [(2, config.num_queries, config.d_model)] * 4
    assert [a.shape for a in outputs.decoder_attentions] == [(2, heads, config.num_queries, config.num_queries)] * 3
    if config.cross_attention == "deformable":
        cross = (2, config.num_queries, heads, config.num_feature_levels, config.decoder_n_points)
        own = (2, tokens, heads, config.num_feature_levels, config.encoder_n_points)
    else:
        cross, own = (2, heads, config.num_queries, tokens), (2, heads, tokens, tokens)
    assert [a.shape for a in outputs.cross_attentions] == [cross] * 3
    assert [a.shape for a in outputs.encoder_attentions] == [own] * 2
    normalised = (-1,) if config.cross_attention != "deformable" else (-1, -2)
    for attention in (*outputs.cross_attentions, *outputs.encoder_attentions):
        torch.testing.assert_close(attention.sum(normalised), torch.ones_like(attention.sum(normalised)))


def gradients(model: HfDetrForObjectDetection) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    model(images(2), labels=labels(2, 3)).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_checkpointing(preset: str):
    model = tiny_model(preset).train()
    expected = gradients(model)
    for reentrant in (False, True):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        checkpointed = gradients(model)
        assert checkpointed.keys() == expected.keys()
        for name, gradient in checkpointed.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=f"{name}, {reentrant}")


def test_two_runs_are_the_same(preset: str):
    def run() -> tuple[list[float], Tensor]:
        model = tiny_model(preset).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for _ in range(3):
            outputs = model(images(2), labels=labels(2, 3))
            optimizer.zero_grad()
            outputs.loss.backward()
            optimizer.step()
            losses.append(outputs.loss.item())
        return losses, outputs.logits

    (losses, logits), (losses_again, logits_again) = run(), run()
    assert losses == losses_again
    assert torch.equal(logits, logits_again)


def test_autocast_training_step(preset: str):
    model = tiny_model(preset).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images(2), labels=labels(2, 3))
    assert outputs.loss.dtype == torch.float32
    assert {value.dtype for value in outputs.loss_dict.values()} == {torch.float32}
    outputs.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
        assert parameter.dtype == torch.float32


@pytest.mark.parametrize("counts", [(0, 2), (0, 0)])
def test_images_without_objects_train(preset: str, counts: tuple[int, int]):
    model = tiny_model(preset).train()
    outputs = model(images(2), labels=labels(*counts))
    outputs.loss.backward()
    assert outputs.loss.isfinite()
    assert outputs.loss > 0
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing  # distributed training waits for every gradient
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_one_step_lowers_the_loss(preset: str):
    """Where queries start from a token, which is detached, they learn it instead: no gradient foresees its change."""
    starts_from_token = get_preset(preset).get("query_content") == "token"
    model = tiny_model(preset, **NO_DROPOUT, **({"query_content": "learned"} if starts_from_token else {})).train()
    pixel_values, annotations = scenes(2)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)  # the same noise for the denoising queries
        loss = model(pixel_values, labels=annotations).loss
        model.zero_grad()
        loss.backward()
        gradient = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
        losses.append(loss.item())
    assert gradient.isfinite()
    assert losses[1] < losses[0]


@pytest.mark.parametrize("preset", ARCHITECTURES)
def test_compiles_into_one_graph(preset: str):
    """Any graph break is an error; "aot_eager" runs all of the compiler but its code generation."""
    torch._dynamo.reset()
    model, mask = tiny_model(preset, encoder_layers=1), padding_mask(2, 96, 96)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected, found = model(images(2), mask), compiled(images(2), mask)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("preset", DENOISING)
def test_the_ground_truth_does_not_leak(preset: str):
    """In training, predictions of the matching queries are the same whatever the labels, or without any."""
    model, pixel_values = tiny_model(preset, **NO_DROPOUT).double().train(), images(2).double()
    model.model.backbone.eval()  # no batch statistics and no dropped paths
    states = []
    for annotations in (labels(2, 3, seed=0), labels(2, 3, seed=5), labels(7, 1, seed=2), labels(0, 0), None):
        torch.manual_seed(len(states))
        with torch.no_grad():
            outputs = model(pixel_values, labels=annotations)
        states.append((outputs.logits, outputs.pred_boxes))
    for logits, boxes in states[1:]:
        torch.testing.assert_close(logits, states[0][0], rtol=0, atol=1e-9)
        torch.testing.assert_close(boxes, states[0][1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("preset", DENOISING)
def test_denoising_is_part_of_training_only(preset: str):
    model, pixel_values, annotations = tiny_model(preset), images(2), labels(2, 3)
    with torch.no_grad():
        assert not any("_dn" in name for name in model(pixel_values, labels=annotations).loss_dict)
        training = model.train()(pixel_values, labels=annotations).loss_dict
        assert {"loss_ce_dn", "loss_bbox_dn", "loss_giou_dn", "loss_ce_dn_0"} <= training.keys()
        off = tiny_model(preset, num_denoising=0).train()(pixel_values, labels=annotations)
    assert not any("_dn" in name for name in off.loss_dict)
    torch.testing.assert_close(off.loss, matching_loss(model, off.loss_dict))


@pytest.mark.parametrize("preset", DENOISING)
def test_denoising_losses_do_not_depend_on_padding_slots(preset: str):
    """An image with few objects beside one with many: its slots are padded, and padding is not supervised."""
    model = tiny_model(preset, **NO_DROPOUT, label_noise_ratio=0.0, box_noise_scale=0.0).double().train()
    model.model.backbone.eval()
    config = model.config
    few, many = labels(1, 4)
    with torch.no_grad():
        alone = model(images(2)[:1].double(), labels=[few], num_boxes=1.0).loss_dict
        with_empty = model(images(2).double(), labels=[few, labels(0)[0]], num_boxes=1.0).loss_dict
        padded = model(images(2).double(), labels=[few, many], num_boxes=1.0).loss_dict
        other = model(images(2)[1:].double(), labels=[many], num_boxes=1.0).loss_dict
    for term in ("loss_bbox_dn", "loss_giou_dn"):
        torch.testing.assert_close(alone[term], with_empty[term], rtol=0, atol=1e-9)
        if config.denoising == "dn":  # the same number of groups, whatever the number of objects
            torch.testing.assert_close(alone[term] + other[term], padded[term], rtol=0, atol=1e-9)


def test_the_saved_file_holds_no_duplicates(preset: str, tmp_path: Path):
    model = tiny_model(preset)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_the_base_model_gives_the_predictions_of_every_layer(preset: str):
    config = tiny_config(preset)
    torch.manual_seed(0)
    model = HfDetrModel(config).eval()
    with torch.no_grad():
        outputs = model(images(2))
    assert outputs.layer_logits.shape[:3] == (config.decoder_layers, 2, config.num_queries)
    assert outputs.layer_boxes.shape == (config.decoder_layers, 2, config.num_queries, 4)
