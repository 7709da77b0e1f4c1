"""Each explanation method against its formula, computed otherwise, and what is refused."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import sys
from base64 import b64decode
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from network_builders import binary_spec, create, input_spec, model_spec, run_torch, tiny_network
from PIL import Image

from edgekit.catalog.explain import ExplainSpec
from edgekit.compiler.explain import methods
from edgekit.compiler.explain.features import features_and_gradients
from edgekit.compiler.explain.methods import METHODS, Question, check_methods
from edgekit.compiler.load.source import normalize
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages import methods as stage
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.workspace import Workspace
from edgekit.errors import CatalogError, MissingEngineError, ModelError
from edgekit.report.methods import Strip, methods_section

OUTPUT = 1
SIDE = 48
BLACK = -1.0
GRADIENTS = ("grad-cam", "hires-cam", "layer-cam", "grad-cam++")


def ask(module, *, size=(SIDE, 64), seed=0, **changes):
    frame = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    return Question(**{"module": module.eval(), "frame": frame, "black": torch.full_like(frame, BLACK), "output": OUTPUT, **changes})


def needs_captum():
    return pytest.importorskip("captum", reason="captum is not installed: edgekit-toolkit[captum]")


class SmallVgg(torch.nn.Module):
    """Its head sees every position by itself, so Grad-CAM and HiResCAM differ."""

    def __init__(self, inplace=True):
        super().__init__()
        torch.manual_seed(3)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(inplace), torch.nn.MaxPool2d(16))
        self.head = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(4 * 3 * 4, 8), torch.nn.ReLU(inplace), torch.nn.Dropout(), torch.nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.head(self.features(x))


class Written(torch.nn.Module):
    """A head of average pooling and a linear layer, in as many ways of writing as there are `pool`s."""

    def __init__(self, pool):
        super().__init__()
        torch.manual_seed(4)
        self.body = torch.nn.Conv2d(3, 8, 3, stride=4)
        self.head = torch.nn.Linear(8, 3)
        self.pool = pool

    def features(self, x):
        return torch.nn.functional.relu(self.body(x), inplace=True)

    def forward(self, x):
        return self.head(self.pool(self.features(x)))


POOLS = {
    "mean of two axes": lambda x: x.mean((2, 3)),
    "mean by name, negative axes": lambda x: torch.mean(x, dim=[-1, -2]),
    "channels last": lambda x: x.permute(0, 2, 3, 1).mean(dim=(1, 2)),
    "tokens": lambda x: x.flatten(2).transpose(1, 2).mean(dim=1),
    "adaptive pooling": lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "pooling by size": lambda x: torch.nn.functional.avg_pool2d(x, x.shape[2:]).view(1, 8),
}


@pytest.mark.parametrize("pool", POOLS)
def test_average_pooling_and_a_linear_layer(pool):
    """However the pooling is written, Grad-CAM and HiResCAM are the class activation map W · A in logit units, LayerCAM that of the positive weights."""
    module = Written(POOLS[pool])
    question = ask(module)
    with torch.no_grad():
        features = module.features(question.frame)[0].numpy()
        weight, bias = module.head.weight[OUTPUT].numpy(), module.head.bias[OUTPUT].item()
        logit = module(question.frame)[0, OUTPUT].item()
    cam = np.tensordot(weight, features, 1)
    assert cam.mean() + bias == pytest.approx(logit, abs=1e-5)
    for name in ("grad-cam", "hires-cam"):
        found = METHODS[name](question)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, cam, atol=1e-5)
    np.testing.assert_allclose(METHODS["layer-cam"](question), np.tensordot(np.maximum(weight, 0), features, 1), atol=1e-5)


def test_grad_cam_plus_plus_of_a_pooled_head():
    """The weights are ReLU(w) / (2 + z · w), where z are the pooled features: Grad-CAM++ in closed form."""
    module = Written(POOLS["mean of two axes"])
    question = ask(module)
    with torch.no_grad():
        features, weight = module.features(question.frame)[0].numpy(), module.head.weight[OUTPUT].numpy()
    weights = np.maximum(weight, 0) / (2 + features.mean(axis=(1, 2)) * weight)
    np.testing.assert_allclose(METHODS["grad-cam++"](question), np.tensordot(weights, features, 1), atol=1e-5)


def test_a_head_that_sees_every_position():
    """Of a flattened map Grad-CAM averages the gradient first and HiResCAM does not; the gradient is the product of the head's matrices."""
    module = SmallVgg()
    question = ask(module)
    with torch.no_grad():
        features = module.features(question.frame)[0].numpy().astype(np.float64)
    first, last = (module.head[index] for index in (1, 4))
    active = first.weight.detach().numpy() @ features.ravel() + first.bias.detach().numpy() > 0
    gradient = ((last.weight.detach().numpy()[OUTPUT] * active) @ first.weight.detach().numpy()).reshape(features.shape)
    expected = {
        "grad-cam": (gradient.mean(axis=(1, 2), keepdims=True) * features).sum(axis=0),
        "hires-cam": (gradient * features).sum(axis=0),
        "layer-cam": (np.maximum(gradient, 0) * features).sum(axis=0),
    }
    assert np.abs(expected["grad-cam"] - expected["hires-cam"]).max() > 0.01
    for name, wanted in expected.items():
        np.testing.assert_allclose(METHODS[name](question), wanted * wanted.size, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False], ids=["fused attention", "attention written out"])
@pytest.mark.parametrize("arguments", [{}, {"reg_tokens": 3}], ids=["class token", "class and register tokens"])
def test_a_vision_transformer(fused, arguments):
    """The features are the patches among the first normalization of the last block, whatever stands in front, and the gradient is that of finite differences."""
    module = create("timm:test_vit", 3, img_size=(SIDE, 64), **arguments).double()
    for block in module.blocks:
        block.attn.fused_attn = fused
    frame = ask(module).frame.double()
    rows, columns = module.patch_embed.grid_size
    kept = {}
    hook = module.blocks[-1].norm1.register_forward_hook(lambda _, __, output: kept.update(tokens=output.detach().clone()))
    module(frame)
    hook.remove()
    patches = kept["tokens"][0, -rows * columns :].T.reshape(-1, rows, columns)
    found = features_and_gradients(module, frame, lambda answer: answer[0, OUTPUT])
    np.testing.assert_allclose(found.values, patches, atol=1e-6)

    def answer(change, channel, token):
        def changed(_, __, output):
            moved = output.clone()
            moved[0, token - rows * columns, channel] += change
            return moved

        handle = module.blocks[-1].norm1.register_forward_hook(changed)
        with torch.no_grad():
            logit = module(frame)[0, OUTPUT].item()
        handle.remove()
        return logit

    for channel, token in [(0, 0), (5, 3), (17, rows * columns - 1)]:
        slope = (answer(1e-4, channel, token) - answer(-1e-4, channel, token)) / 2e-4
        assert found.gradients[channel].ravel()[token] == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_a_transformer_with_average_pooling():
    """Tokens that are averaged are the features, also after the last attention."""
    module = create("timm:test_vit", 3, img_size=(SIDE, 64), global_pool="avg", class_token=False)
    question = ask(module)
    kept = {}
    module.blocks[-1].register_forward_hook(lambda _, __, output: kept.update(tokens=output.detach()))
    found = features_and_gradients(module, question.frame, question.score)
    rows, columns = module.patch_embed.grid_size
    np.testing.assert_allclose(found.values, kept["tokens"][0].T.reshape(-1, rows, columns), atol=1e-6)


@pytest.mark.parametrize("name", GRADIENTS)
def test_frozen_weights_and_a_caller_without_gradients(name):
    """A module whose parameters are frozen has maps all the same, under no_grad too, and is not changed."""
    module = tiny_network().requires_grad_(False)
    free = METHODS[name](ask(tiny_network()))
    with torch.no_grad():
        np.testing.assert_array_equal(METHODS[name](ask(module)), free)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("name", ["grad-cam", "hires-cam"])
def test_evidence_against(name):
    """For a linear explanation the map of the negative is the negative of the map."""
    module = tiny_network()
    np.testing.assert_allclose(METHODS[name](ask(module, negative=True)), -METHODS[name](ask(module)), atol=1e-6)


def test_features_that_are_negative():
    """Grad-CAM++ is refused where its formula has no value, and nothing is put in its place."""
    module = Written(lambda x: (x - 1e3).mean((2, 3)))
    with pytest.raises(ModelError, match="features that are not negative"):
        METHODS["grad-cam++"](ask(module))


def test_a_network_without_features():
    """A network that never pools, flattens or attends to a map is refused."""

    class Sliced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.body(x)[:, :, 0, 0]

    with pytest.raises(ModelError, match="no feature map is seen"):
        METHODS["grad-cam"](ask(Sliced()))


UNUSED = {
    "detached before": lambda x: x.detach().mean((2, 3)),
    "detached after": lambda x: x.mean((2, 3)).detach(),
    "left aside": lambda x: ((x + 0).mean((2, 3)), x[:, :, 0, 0])[1],
}


@pytest.mark.parametrize("pool", UNUSED)
def test_a_map_that_the_answer_does_not_use(pool):
    """A pooled map that leads nowhere is not taken for the reason."""
    with pytest.raises(ModelError, match="does not reach the answer"):
        METHODS["grad-cam"](ask(Written(UNUSED[pool])))


def test_saliency():
    """The largest absolute gradient over the channels, from the backward pass itself."""
    needs_captum()
    question = ask(tiny_network())
    frame = question.frame.clone().requires_grad_()
    question.module(frame)[0, OUTPUT].backward()
    np.testing.assert_allclose(METHODS["saliency"](question), frame.grad[0].abs().amax(dim=0), rtol=1e-5)


def test_integrated_gradients_are_complete():
    """The map's sum is the answer's change from a black frame, and pixels that are black have no share in it."""
    needs_captum()
    question = ask(tiny_network())
    question.frame[:, :, :, :32] = BLACK
    found = METHODS["integrated-gradients"](question)
    with torch.no_grad():
        change = (question.module(question.frame) - question.module(question.black))[0, OUTPUT].item()
    assert abs(change) > 0.01
    assert found.sum() == pytest.approx(change, abs=0.02 * abs(change))
    assert not found[:, :32].any()
    assert np.abs(found[:, 32:]).max() > 0


def test_integrated_gradients_that_do_not_converge():
    """A step that the integral cannot resolve is refused: the sum would be the map's, not the answer's."""
    needs_captum()

    class Step(torch.nn.Module):
        def forward(self, x):
            # Steep between two points of the integral: the gradient is seen nowhere.
            return 5.0 * torch.sigmoid(1e7 * (x.mean(dim=(1, 2, 3)) + 0.43217))[:, None].repeat(1, 3)

    with pytest.raises(ModelError, match="integrated gradients miss 5"):
        METHODS["integrated-gradients"](ask(Step()))


def test_relevance_by_its_own_formula():
    """ε-LRP of convolution, normalization, ReLU, pooling and a linear layer, by Bach et al.'s formula applied layer by layer in numpy."""
    needs_captum()
    module = tiny_network()
    question = ask(module)
    conv, norm, *_, linear = module
    with torch.no_grad():
        a0 = question.frame.double()
        double = torch.nn.functional.conv2d
        a1 = double(a0, conv.weight.double(), conv.bias.double(), stride=2, padding=1)
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).double().reshape(1, -1, 1, 1)
        shift = (norm.bias - norm.running_mean * scale.flatten().float()).double().reshape(1, -1, 1, 1)
        a2 = a1 * scale + shift
        a3 = a2.clamp(min=0)
        z = a3.mean(dim=(2, 3))
        y = (z @ linear.weight.double().T + linear.bias.double())[0, OUTPUT]
        of_z = z[0] * linear.weight[OUTPUT].double() / y * y  # share of each z in the logit; the bias keeps its own
        of_a3 = a3 / a3.sum(dim=(2, 3), keepdim=True).clamp(min=1e-30) * of_z.reshape(1, -1, 1, 1)
        of_a1 = torch.where(a2 == 0, 0, a1 * scale * of_a3 / a2)
        back = torch.nn.functional.conv_transpose2d(
            torch.where(a1 == 0, 0, of_a1 / a1), conv.weight.double(), stride=2, padding=1, output_padding=1
        )
        expected = (a0 * back)[0].sum(dim=0).numpy()
    found = METHODS["lrp"](question)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(METHODS["lrp"](ask(module, negative=True)), -found, atol=1e-6)


class Functional(torch.nn.Module):
    """Adds what came before with a plus sign, which no layer-wise rule sees."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.head(torch.nn.functional.adaptive_avg_pool2d(self.second(x) + self.first(x), 1).flatten(1))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: tiny_network(last=(torch.nn.Hardswish(),)), r"the layer 6 \(Hardswish\)"),
        (Functional, r"add\(\), which is no layer"),
        (lambda: Written(POOLS["mean of two axes"]), r"relu\(\), which is no layer"),
    ],
    ids=["a layer", "a plus sign", "a ReLU that is a function"],
)
def test_what_relevance_cannot_follow(build, named):
    """What captum has no rule for is refused by name: it would pass a gradient on as relevance and say nothing."""
    needs_captum()
    with pytest.raises(ModelError, match=named):
        METHODS["lrp"](ask(build()))


@pytest.mark.parametrize("name", sorted(methods.OF_CAPTUM))
def test_captum_leaves_the_network_as_it_was(name):
    """Rules, hooks and layers that work in place belong to a copy; weights, layers and the answer stay."""
    needs_captum()
    module = SmallVgg()
    question = ask(module)
    with torch.no_grad():
        before = module(question.frame)
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    parts = [(type(part), dict(vars(part)).keys()) for part in module.modules()]
    kept = question.frame.clone()
    assert METHODS[name](question).shape == (SIDE, 64)
    with torch.no_grad():
        assert torch.equal(module(question.frame), before)
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())
    assert [(type(part), dict(vars(part)).keys()) for part in module.modules()] == parts
    assert torch.equal(question.frame, kept)
    assert not question.frame.requires_grad


def test_an_unknown_method():
    """The nearest name is proposed, before anything is computed."""
    with pytest.raises(CatalogError, match=r"no method 'gradcam'") as error:
        check_methods(["gradcam"])
    assert "did you mean 'grad-cam'?" in error.value.hint


def test_captum_is_not_there(monkeypatch):
    """Who asks for a method of captum's without it is told what to install; the others need none."""
    monkeypatch.setitem(sys.modules, "captum", None)
    check_methods(GRADIENTS)
    with pytest.raises(MissingEngineError, match="captum cannot be loaded") as error:
        check_methods(["grad-cam", "lrp"])
    assert "edgekit-toolkit[captum]" in error.value.hint


def test_the_tables_agree():
    """Every method has a title, and what is said to be captum's is a method."""
    assert list(methods.TITLES) == list(METHODS)
    assert set(METHODS) > methods.OF_CAPTUM


def prepared_of(module, recipe, *, frames=6, logits=None):
    """What a comparison needs of a compile: a module, frames of two labels, and what the trained model answered."""
    shape = (frames, *recipe.input.size, recipe.input.frame_channels)
    tensors = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = [SimpleNamespace(labels=("ab"[index % 2],), group=f"g{index}", file=f"{index}.png") for index in range(frames)]
    split = SimpleNamespace(tensors=tensors, samples=tuple(rows), sha256=f"frames {frames}")
    source = SimpleNamespace(get=lambda: SimpleNamespace(module=module), spec=recipe.input, model=recipe.model)
    if logits is None:
        logits = run_torch(module, recipe.input, tensors)
    graph = SimpleNamespace(sha256="graph")
    return SimpleNamespace(recipe=recipe, splits={"test": split}, reference={"test": logits}, source=source, graph=graph)


def recipe_of(*names, outputs=3, frames=4):
    model = model_spec() if outputs == 3 else binary_spec()
    explain = ExplainSpec(compare=names, compare_frames=frames)
    return SimpleNamespace(explain=explain, model=model, input=input_spec())


def compared(tmp_path, prepared, maps):
    device = Measured(logits=prepared.reference["test"], maps=maps)
    return stage.compare_methods(prepared, device, Workspace(tmp_path / "work", Silent()))


def own_maps(module, prepared):
    """W · A of a tiny network for every frame and output: float32 (frames, outputs, rows, columns)."""
    planes = torch.from_numpy(normalize(prepared.splits["test"].tensors, prepared.recipe.input))
    with torch.no_grad():
        features = module[:3](planes)
    return torch.einsum("oc,fcij->foij", module[5].weight.detach(), features).numpy()


def test_the_comparison_of_a_faithful_device(tmp_path):
    """A device whose maps are the trained model's is alike to Grad-CAM on every frame, for the label that the trained model answers."""
    module = tiny_network()
    prepared = prepared_of(module, recipe_of("grad-cam", "layer-cam"))
    found = compared(tmp_path, prepared, own_maps(module, prepared))
    first, second = found.document["methods"]
    assert found.document["frames"] == first["frames"] == len(found.strips) == 4
    assert (first["title"], first["rows"], first["columns"], first["refused"]) == ("Grad-CAM", 16, 16, "")
    assert first["pearson_median"] == pytest.approx(1, abs=1e-5)
    assert (first["peak_shift_median"], first["peak_near"]) == (0, 1)
    assert second["pearson_median"] < 0.999
    answered = prepared.reference["test"].argmax(axis=1)
    for strip in found.strips:
        index = int(strip.file.partition(".")[0])
        assert strip.label == "abc"[answered[index]]
        assert list(strip.maps) == ["device", "Grad-CAM", "LayerCAM"]
        np.testing.assert_allclose(strip.maps["Grad-CAM"], strip.maps["device"], atol=1e-4)


def test_the_frames_of_the_comparison(tmp_path):
    """They are spread over the labels, always the same, and no more than there are."""
    prepared = prepared_of(tiny_network(), recipe_of("grad-cam", frames=4))
    drawn = [[strip.file for strip in compared(tmp_path / name, prepared, None).strips] for name in "ab"]
    assert drawn[0] == drawn[1]
    assert sorted(int(file[0]) % 2 for file in drawn[0]) == [0, 0, 1, 1]
    few = prepared_of(tiny_network(), recipe_of("grad-cam", frames=4), frames=3)
    assert compared(tmp_path / "few", few, None).document["frames"] == 3


def test_a_single_logit(tmp_path):
    """One logit is the second label's; on a frame that is answered with the first, every map is that of its negative, the device's too."""
    module = tiny_network(outputs=1)
    prepared = prepared_of(module, recipe_of("grad-cam", outputs=2), logits=np.array([[1.0], [-1.0]] * 3, dtype=np.float32))
    maps = own_maps(module, prepared)
    found = compared(tmp_path, prepared, maps)
    assert found.document["methods"][0]["pearson_median"] == pytest.approx(1, abs=1e-5)
    assert {strip.label for strip in found.strips} == {"negative", "positive"}
    for strip in found.strips:
        sign = 1 if strip.label == "positive" else -1
        np.testing.assert_allclose(strip.maps["Grad-CAM"], sign * maps[int(strip.file[0]), 0], atol=1e-4)


def test_a_device_without_a_map(tmp_path):
    """The methods are shown all the same, and no figure is made up."""
    found = compared(tmp_path, prepared_of(tiny_network(), recipe_of("grad-cam")), None)
    assert not found.document["has_map"]
    assert found.document["methods"][0]["pearson_median"] is None
    assert [list(strip.maps) for strip in found.strips] == [["Grad-CAM"]] * 4


def test_a_method_that_is_refused_on_some_frames(tmp_path, monkeypatch):
    """Such a frame is left out of the figures and shown without a picture; a method refused on all frames has neither."""
    calls = []

    def sometimes(question):
        calls.append(question)
        if len(calls) == 2:
            raise ModelError("the second one is too hard")
        return methods.grad_cam(question)

    def never(question):
        raise ModelError("not this network")

    monkeypatch.setattr(stage, "METHODS", {**METHODS, "hires-cam": sometimes, "layer-cam": never})
    module = tiny_network()
    prepared = prepared_of(module, recipe_of("hires-cam", "layer-cam"))
    found = compared(tmp_path, prepared, own_maps(module, prepared))
    some, none = found.document["methods"]
    assert (some["frames"], some["refused"]) == (3, "the second one is too hard")
    assert some["pearson_median"] == pytest.approx(1, abs=1e-5)
    assert [strip.maps["HiResCAM"] is None for strip in found.strips] == [False, True, False, False]
    assert (none["frames"], none["rows"], none["pearson_median"], none["refused"]) == (0, None, None, "not this network")
    assert not any("LayerCAM" in strip.maps for strip in found.strips)
    page = methods_section({"methods": found.document}, found.strips)[0].text
    assert "HiResCAM: not computed on 1 frame of 4, because the second one is too hard." in page
    assert "LayerCAM: not computed on 4 frames of 4, because not this network." in page


def test_a_second_run_computes_nothing(tmp_path, monkeypatch):
    """The maps of a method are a stage's result; a further method costs only itself."""
    module = tiny_network()
    before = compared(tmp_path, prepared_of(module, recipe_of("grad-cam")), None)
    monkeypatch.setattr(stage, "METHODS", {**METHODS, "grad-cam": None})
    after = compared(tmp_path, prepared_of(module, recipe_of("grad-cam", "hires-cam")), None)
    assert [row["method"] for row in after.document["methods"]] == ["grad-cam", "hires-cam"]
    np.testing.assert_array_equal(after.strips[0].maps["Grad-CAM"], before.strips[0].maps["Grad-CAM"])


def test_nothing_to_compare(tmp_path):
    """A recipe without methods has no comparison and no section."""
    assert compared(tmp_path, prepared_of(tiny_network(), recipe_of()), None) is None
    assert methods_section({"methods": None}, ()) == []


@pytest.mark.parametrize(
    ("names", "source", "said"),
    [
        (("grad-cam", "gradcam++"), "timm:resnet18", "no method 'gradcam\\+\\+'"),
        (("grad-cam",), "onnx:model.onnx", "a model from onnx: is no network that PyTorch can differentiate"),
        (("grad-cam",), "pt2:model.pt2", "a model from pt2:"),
    ],
)
def test_what_is_refused_before_any_work(names, source, said):
    """An unknown method, or a model without gradients, stops a compile at its start."""
    recipe = SimpleNamespace(explain=ExplainSpec(compare=names), model=SimpleNamespace(source=source))
    with pytest.raises(CatalogError, match=said):
        stage.check_comparison(recipe)
    stage.check_comparison(SimpleNamespace(explain=ExplainSpec(), model=SimpleNamespace(source=source)))


def test_the_section():
    """Names are escaped, each map is drawn by its own largest value, and a map without evidence leaves the frame as it is."""
    frame = np.full((32, 32), 90, dtype=np.uint8)
    evidence = np.zeros((4, 4), dtype=np.float32)
    evidence[0, 0] = 1e-3
    strip = Strip(file="<b>.png", label="a&b", frame=frame, maps={"device": evidence * 1e6, "Grad-CAM": evidence, "HiResCAM": evidence - 1})
    row = {"method": "grad-cam", "title": "Grad-CAM", "rows": 4, "columns": 4, "frames": 1, "refused": "", "pearson_median": 0.5}
    row |= {"pearson_p5": 0.25, "peak_shift_median": 1.0, "peak_near": 0.75}
    page = methods_section({"methods": {"frames": 1, "has_map": True, "methods": [row]}}, [strip])[0].text
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page
    pictures = [part.split('"')[0] for part in page.split("base64,")[1:]]
    plain, device, grad_cam, hires_cam = pictures
    assert device == grad_cam != plain
    assert np.array_equal(*(np.asarray(Image.open(BytesIO(b64decode(item))).convert("RGB")) for item in (hires_cam, plain)))
    assert ">0.500<" in page
    assert "75.0\u202f%" in page
