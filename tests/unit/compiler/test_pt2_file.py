"""`.pt2` archives as a source: honest ones answer as the model, and no tampered one executes anything."""
# ruff: noqa: TID253, ARG005 - the tests of what loads torch load torch, and a table of cases is called alike

from __future__ import annotations

import io
import json
import pickle
import random
import sys

import pytest
import torch
from network_builders import binary_spec, frames, input_spec, model_spec, run_torch, tiny_network
from pt2_builders import CONSTANTS, MODEL, SAMPLES, WEIGHTS, Network, Payload, first, members, nodes, opened, pack, payload, save, tampered

from edgekit.compiler.load import pt2_archive
from edgekit.errors import EdgekitError, ModelError


@pytest.fixture(scope="module")
def network():
    return Network()


@pytest.fixture(scope="module")
def archive(network, tmp_path_factory):
    """A real archive of torch.export.save."""
    return save(network, tmp_path_factory.mktemp("pt2") / "net.pt2")


def test_an_archive_answers_as_the_model(network, archive):
    """Batch normalization included; frame by frame, since its batch is fixed."""
    spec = input_spec()
    tensors = frames(spec, count=3)
    done = []
    found = opened(archive).logits(tensors, done.append)
    assert found == pytest.approx(run_torch(network, spec, tensors), abs=1e-5)
    assert done == [1, 2, 3]


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_binary_archive_has_one_logit_or_two(tmp_path, outputs):
    """The labels are two either way."""
    path = save(tiny_network(outputs), tmp_path / "net.pt2")
    assert opened(path, binary_spec(f"pt2:{path}")).logits(frames(input_spec()), lambda _: None).shape == (2, outputs)


def test_what_pytorch_gets_holds_no_pickle(archive):
    """The sample inputs are emptied, guards and metadata are left out, the tensors stay as they are."""
    before = members(archive)
    after = members(io.BytesIO(pt2_archive.checked(archive)))
    assert before.keys() == after.keys()
    assert before[SAMPLES].startswith(b"PK")
    assert after[SAMPLES] == b""
    assert [name for name, data in after.items() if data.startswith((b"PK", b"\x80"))] == []
    assert {name: before[name] for name in before if "weight_" in name or "tensor_" in name}.items() <= after.items()
    program = json.loads(after[MODEL])
    assert program["guards_code"] == []
    assert {json.dumps(node["metadata"]) for node in program["graph_module"]["graph"]["nodes"]} == {"{}"}


def test_a_payload_in_the_sample_inputs_is_never_read(archive, tmp_path):
    """They are always a pickle, so they are dropped and not refused; PyTorch itself would execute this one."""
    created = tmp_path / "created"
    path = pack(tmp_path / "evil.pt2", {**members(archive), SAMPLES: payload(created)})
    assert opened(path).logits(frames(input_spec()), lambda _: None).shape == (2, 3)
    assert not created.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever PyTorch says about the file it opened
        torch.export.load(path)
    assert created.exists()


def pickled_weight(content, created):
    table = json.loads(content[WEIGHTS])
    first(table).update(use_pickle=True)
    return {**content, WEIGHTS: json.dumps(table), f"data/weights/{first(table)['path_name']}": payload(created)}


def pickled_constant(content, created):
    table = json.loads(content[CONSTANTS])
    first(table).update(use_pickle=True)
    return {**content, CONSTANTS: json.dumps(table), f"data/constants/{first(table)['path_name']}": payload(created)}


def constant_as(prefix):
    def change(content, created):
        table = json.loads(content[CONSTANTS])
        first(table).update(path_name=f"{prefix}_0", use_pickle=False)
        return {**content, CONSTANTS: json.dumps(table), f"data/constants/{prefix}_0": pickle.dumps(Payload(created))}

    return change


def constant_elsewhere(content, created):
    """A name that begins as an opaque object's and ends at a member that is allowed."""
    table = json.loads(content[CONSTANTS])
    first(table).update(path_name="opaque_obj_/../tensor_0", use_pickle=False)
    return {**content, CONSTANTS: json.dumps(table), "data/constants/tensor_0": pickle.dumps(Payload(created))}


PICKLES = {
    "pickled-weight": (pickled_weight, "holds a pickle"),
    "pickled-constant": (pickled_constant, "holds a pickle"),
    "custom-object": (constant_as("custom_obj"), "holds 'net/data/constants/custom_obj_0', which could execute code"),
    "opaque-object": (constant_as("opaque_obj"), "holds 'net/data/constants/opaque_obj_0', which could execute code"),
    "opaque-object-elsewhere": (constant_elsewhere, "is not where tensors are"),
    "old-weights": (lambda content, created: {**content, "data/weights/model.pt": payload(created)}, "could execute code"),
    "old-constants": (lambda content, created: {**content, "data/constants/model.pt": payload(created)}, "could execute code"),
    "compiled-code": (lambda content, created: {**content, "data/aotinductor/model/model.so": b"\x7fELF"}, "could execute code"),
    "extra-file": (lambda content, created: {**content, "extra/readme.txt": b""}, "could execute code"),
    "second-model": (lambda content, created: {**content, "models/other.json": content[MODEL]}, "could execute code"),
}


@pytest.mark.parametrize(("change", "message"), PICKLES.values(), ids=PICKLES)
def test_a_payload_as_a_member_is_refused(archive, tmp_path, change, message):
    """By the name and the description of the member, before anything of it is read."""
    created = tmp_path / "created"
    path = pack(tmp_path / "evil.pt2", change(members(archive), created))
    with pytest.raises(ModelError, match=message):
        opened(path)
    assert not created.exists()


def target(name):
    return lambda table: nodes(table)[0].update(target=name)


TARGETS = [
    "torch.os.system",
    "torch.hub.load",
    "torch.load",
    "torch.ops.higher_order.cond",
    "torch.ops.prims.add.default",
    "torch.ops.aten.no_such_operator.default",
    "torch.ops.aten.conv2d.no_such_overload",
    "torch.ops.aten.__class__.__subclasses__",
    "torch.ops.aten.conv2d.__call__",
    "torch.ops.aten.conv2d.default.__class__",
    "torch.ops.aten.conv2d",
    "_operator.getitem",
    "_operator.methodcaller",
    "math.sqrt",
    "#namespace:op",
    "",
    "torch.ops.aten.relu.default\n",
]


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_no_aten_operator_is_refused(archive, tmp_path, name):
    """Names are looked up in one place, and only operators are found there."""
    with pytest.raises(ModelError, match="which is not an ATen operator"):
        opened(tampered(archive, tmp_path / "evil.pt2", MODEL, target(name)))


@pytest.mark.parametrize("name", ["from_file.default", "save.default", "_print.default", "set_.source_Storage", "wait.default"])
def test_an_operator_that_takes_more_than_numbers_is_refused(archive, tmp_path, name):
    """ATen can read and write files, too."""
    with pytest.raises(ModelError, match="neither a tensor nor a number"):
        opened(tampered(archive, tmp_path / "evil.pt2", MODEL, target(f"torch.ops.aten.{name}")))


def test_a_file_is_not_made_by_an_operator(archive, tmp_path):
    """`aten::from_file` with shared = true makes the file it maps, as soon as the model runs."""
    created = tmp_path / "created"

    def change(table):
        arguments = {"filename": {"as_string": str(created)}, "shared": {"as_bool": True}, "size": {"as_int": 8}}
        nodes(table)[0].update(
            target="torch.ops.aten.from_file.default", inputs=[{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()]
        )

    path = tampered(archive, tmp_path / "evil.pt2", MODEL, change)
    with pytest.raises(ModelError, match="takes filename"):
        opened(path)
    assert not created.exists()


def signature(table):
    return table["graph_module"]["module_call_graph"][0]["signature"]


def importing(table):
    """A tree specification that imports a module of the sender's choice."""
    context = {"default_factory_module": "edgekit_evil", "default_factory_name": "x", "dict_context": []}
    signature(table)["out_spec"] = json.dumps([1, {"type": "collections.defaultdict", "context": context, "children_spec": []}])


def keyword(table):
    """A keyword that becomes a parameter of the generated function."""
    spec = json.loads(signature(table)["in_spec"])
    spec[1]["children_spec"][1].update(
        context=json.dumps(["x=print()"]), children_spec=[{"type": None, "context": None, "children_spec": []}]
    )
    signature(table)["in_spec"] = json.dumps(spec)


def rename(old, new):
    """Everywhere in the program."""

    def change(table):
        text = json.dumps(table).replace(json.dumps(old), json.dumps(new))
        table.clear()
        table.update(json.loads(text))

    return change


CODE = "__import__('pathlib').Path({created!r}).touch()"
INJECTIONS = {
    "node": (rename("conv2d", "conv2d = {code}; conv2d"), "is no identifier"),
    "node-with-newline": (rename("conv2d", "conv2d\n    {code}"), "is no identifier"),
    "input": (rename("x", "x=({code})"), "is no identifier"),
    "attribute-of-torch": (rename("conv2d", "torch.load"), "is no identifier"),
    "parameter": (rename("head.weight", 'head.we"),{code},getattr(self,"ight'), "is no identifier"),
    "dunder-parameter": (rename("head.weight", "__class__.weight"), "is no identifier"),
    "argument-name": (lambda table: nodes(table)[0]["inputs"][0].update(name="input=({code})"), "is no identifier"),
    "operator-as-a-value": (
        lambda table: nodes(table)[0]["inputs"][0].update(arg={"as_operator": "torch.os.system"}),
        "operators as values",
    ),
    "nested-graph": (
        lambda table: nodes(table)[0]["inputs"][0].update(arg={"as_graph": {"name": "g", "graph": {}}}),
        "nested graphs",
    ),
    "custom-object": (
        lambda table: nodes(table)[0]["inputs"][0].update(arg={"as_custom_obj": {"name": "o", "class_fqn": "c"}}),
        "custom objects",
    ),
    "importing-tree": (importing, "does not take one tensor and return one"),
    "keyword": (keyword, "does not take one tensor and return one"),
    "symbolic-size": (
        lambda table: table["graph_module"]["graph"]["sym_int_values"].update(s={"as_expr": {"expr_str": "{code}", "hint": None}}),
        "symbolic sizes",
    ),
    "symbolic-range": (
        lambda table: table["range_constraints"].update({"{code}": {"min_val": 0, "max_val": 1}}),
        "is no identifier",
    ),
}


def with_code(table, code):
    """Puts the code where a case left room for it."""
    text = json.dumps(table).replace("{code}", json.dumps(code)[1:-1])
    table.clear()
    table.update(json.loads(text))


@pytest.mark.parametrize(("change", "message"), INJECTIONS.values(), ids=INJECTIONS)
def test_a_name_never_becomes_code(archive, tmp_path, monkeypatch, change, message):
    """PyTorch writes names into Python source and executes it; the file that the code would make is not there."""
    created = tmp_path / "created"
    (tmp_path / "edgekit_evil.py").write_text(f"x = {CODE.format(created=str(created))}\n")
    monkeypatch.syspath_prepend(tmp_path)

    def tamper(table):
        change(table)
        with_code(table, CODE.format(created=str(created)))

    with pytest.raises(ModelError, match=message):
        opened(tampered(archive, tmp_path / "evil.pt2", MODEL, tamper))
    assert not created.exists()
    assert "edgekit_evil" not in sys.modules


LEFT_OUT = {
    "guards": lambda table, code: table.update(guards_code=[code]),
    "argument-names": lambda table, code: signature(table).update(forward_arg_names=[f"x=({code})"]),
    "trace": lambda table, code: nodes(table)[0].update(metadata={"stack_trace": f"\n{code}", "source_fn_stack": "n,torch.os.system"}),
    "module-metadata": lambda table, code: table["graph_module"].update(metadata={"custom": f'"{code}"'}),
    "named-tuples": lambda table, code: table["graph_module"].update(treespec_namedtuple_fields={code: {"field_names": [code]}}),
    "calls-of-parts": lambda table, code: table["graph_module"]["module_call_graph"].append({"fqn": code, "signature": None}),
}


@pytest.mark.parametrize("change", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_pytorch_only_shows_is_left_out(archive, tmp_path, change):
    """The model answers the same without it."""
    created = tmp_path / "created"
    path = tampered(archive, tmp_path / "evil.pt2", MODEL, lambda table: change(table, CODE.format(created=str(created))))
    tensors = frames(input_spec())
    assert opened(path).logits(tensors, lambda _: None) == pytest.approx(opened(archive).logits(tensors, lambda _: None), abs=1e-6)
    assert not created.exists()


def test_a_second_document_in_the_same_bytes_is_not_read(archive, tmp_path):
    """Of a repeated key one parser takes the first and another the last; PyTorch gets what was checked."""
    content = members(archive)
    text = content[MODEL].decode()
    evil = text.replace(
        '"target": "torch.ops.aten.conv2d.default"', '"target": "torch.os.system", "target": "torch.ops.aten.conv2d.default"', 1
    )
    assert evil != text
    clean = pt2_archive.checked(pack(tmp_path / "evil.pt2", {**content, MODEL: evil}))
    assert b"torch.os.system" not in clean


def test_a_large_size_without_bytes_is_refused(archive, tmp_path):
    """PyTorch makes a tensor without bytes of zeros, however large it is declared."""

    def change(table):
        first(table)["tensor_meta"]["sizes"] = [{"as_int": 2**20}, {"as_int": 2**20}]

    with pytest.raises(ModelError, match="declares more than"):
        opened(tampered(archive, tmp_path / "evil.pt2", WEIGHTS, change))


@pytest.mark.parametrize("size", [-1, True, "8", None])
def test_a_size_that_is_no_number_is_refused(archive, tmp_path, size):
    """Or that is symbolic."""
    with pytest.raises(ModelError, match="is not static"):
        opened(
            tampered(archive, tmp_path / "evil.pt2", WEIGHTS, lambda table: first(table)["tensor_meta"].update(sizes=[{"as_int": size}]))
        )


def test_a_missing_file_and_weights_beside_it_are_refused(archive, tmp_path):
    """The archive holds its own weights."""
    with pytest.raises(ModelError, match=r"gone\.pt2 is not there"):
        opened(tmp_path / "gone.pt2")
    with pytest.raises(ModelError, match="holds its own weights"):
        opened(archive, model_spec(f"pt2:{archive}", "w.safetensors"))


def test_open_sizes_are_refused(tmp_path):
    """PyTorch evaluates their expressions as Python."""
    path = save(
        tiny_network(),
        tmp_path / "net.pt2",
        example=(torch.rand(2, 3, 32, 32),),
        dynamic_shapes=({0: torch.export.Dim("n", min=1, max=8)},),
    )
    with pytest.raises(ModelError, match="symbolic sizes"):
        opened(path)


def test_a_model_exported_while_training_is_refused(tmp_path):
    """Batch normalization would follow the frames that are shown to it."""
    path = save(tiny_network().train(), tmp_path / "net.pt2", example=(torch.rand(1, 3, 32, 32),))
    with pytest.raises(ModelError, match="exported in training mode"):
        opened(path)


def test_a_model_of_two_inputs_is_refused(tmp_path):
    """One frame in, one vector of logits out."""

    class Two(torch.nn.Module):
        def forward(self, x, y):
            return (x + y).mean((2, 3))

    path = save(Two(), tmp_path / "net.pt2", example=(torch.rand(1, 3, 32, 32),) * 2)
    with pytest.raises(ModelError, match="does not take one tensor and return one"):
        opened(path)


def test_other_labels_than_outputs_are_refused(archive):
    """As for every source."""
    with pytest.raises(ModelError, match="has 3 outputs, the recipe names 2 labels"):
        opened(archive, model_spec(f"pt2:{archive}", labels=("a", "b")))


def leaves(item, path=()):
    """Every place in a JSON document."""
    entries = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, value in entries:
        yield item, key
        yield from leaves(value, (*path, key))


def test_no_replaced_value_raises_anything_but_edgekits_error(archive, tmp_path):
    """A value of another type anywhere in the program is refused or makes no difference."""
    content = members(archive)
    chooser = random.Random(0)
    for _ in range(40):
        table = json.loads(content[MODEL])
        item, key = chooser.choice(list(leaves(table)))
        item[key] = chooser.choice([None, -1, 2**70, "x", [], {}, [[]], True, 1e300, "a b"])
        try:
            pt2_archive.checked(pack(tmp_path / "evil.pt2", {**content, MODEL: json.dumps(table)}))
            opened(tmp_path / "evil.pt2")
        except EdgekitError:
            continue
