"""Calls of models inside models: where each really gets its tensors from."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from kzoo.flatten import FlatGraph

SIZE = (4, 4, 3)


def way(node) -> list[str]:
    """Names of the operations back to an input, along the first tensor of each."""
    names = []
    while node.call is not None:
        names.append(node.operation.name)
        node = node.sources[0]
    return [*names, node.operation.name]


def model_of(name: str) -> keras.Model:
    image = keras.Input(SIZE, name=f"{name}_in")
    return keras.Model(image, layers.ReLU(name=f"{name}_relu")(image), name=name)


def test_the_way_leads_through_models_at_any_depth():
    image = keras.Input(SIZE, name="image")
    inner = keras.Sequential([keras.Input(SIZE), model_of("a"), layers.Dropout(0.1, name="drop"), model_of("b")])
    model = keras.Model(image, layers.ReLU(name="last")(inner(layers.ReLU(name="first")(image))))
    (output,) = FlatGraph(model).outputs
    assert way(output) == ["last", "b_relu", "drop", "a_relu", "first", "image"]
    assert sorted(node.operation.name for node in FlatGraph(model).nodes()) == [
        "a_relu", "b_relu", "drop", "first", "last",
    ]  # fmt: skip


def test_a_model_that_is_called_twice_is_another_each_time():
    image = keras.Input(SIZE, name="image")
    shared = model_of("shared")
    one = shared(layers.ReLU(name="one")(image))
    two = shared(layers.ReLU(name="two")(image))
    graph = FlatGraph(keras.Model(image, [two, layers.ReLU(name="behind")(one), layers.ReLU(name="after")(two)]))
    assert [way(output) for output in graph.outputs] == [
        ["shared_relu", "two", "image"],
        ["behind", "shared_relu", "one", "image"],
        ["after", "shared_relu", "two", "image"],
    ]
    assert len([node for node in graph.nodes() if node.operation.name == "shared_relu"]) == 2
    assert graph.outputs[0] is graph.outputs[2].sources[0]


def test_a_model_of_several_inputs_and_one_that_is_called_on_another_models_output():
    left, right = keras.Input(SIZE, name="left"), keras.Input(SIZE, name="right")
    inner = keras.Model([left, right], layers.Subtract(name="minus")([layers.ReLU(name="relu")(right), left]))
    first, second = keras.Input(SIZE, name="first"), keras.Input(SIZE, name="second")
    model = keras.Model([first, second], model_of("outside")(inner([first, model_of("before")(second)])))
    (output,) = FlatGraph(model).outputs
    minus = output.sources[0]
    assert [way(source) for source in minus.sources] == [["relu", "before_relu", "second"], ["first"]]


def backwards(structure):
    """The same with the keys of its dicts written the other way round."""
    if isinstance(structure, dict):
        return {key: backwards(structure[key]) for key in reversed(structure)}
    return structure


A, B = keras.Input((4,), name="a"), keras.Input((4,), name="b")
STRUCTURES = {
    "dict": {"a": A, "b": B},
    "dict, not in order": {"b": B, "a": A},
    "list": [B, A],
    "dict of dicts": {"x": {"q": B, "p": A}},
    "dict with a list": {"z": A, "y": [B]},
}


def difference_of(inputs) -> keras.Model:
    """`relu(a) - b`."""
    return keras.Model(inputs, layers.Subtract(name="minus")([layers.ReLU(name="relu")(A), B]), name="inner")


def assert_the_graph_tells_what_is_computed(inner, given) -> None:
    """Of `inner`, which is called on what `given` makes of the two tensors by their names."""
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    model = keras.Model([first, second], inner(given({"a": first, "b": second})))
    assert np.all(model([np.full((1, 4), 5.0), np.full((1, 4), 1.0)]) == 4)
    assert [way(source) for source in FlatGraph(model).outputs[0].sources] == [["relu", "first"], ["second"]]


@pytest.mark.parametrize("turn", [lambda structure: structure, backwards], ids=["as made", "backwards"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_dicts_of_tensors_are_paired_by_their_keys(structure, turn):
    structure = STRUCTURES[structure]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When providing `inputs` as a dict", UserWarning)
        inner = difference_of(structure)
    assert_the_graph_tells_what_is_computed(
        inner, lambda tensors: keras.tree.map_structure(lambda tensor: tensors[tensor.name], turn(structure))
    )


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_list_of_inputs_that_is_given_as_a_dict_goes_by_the_names(names):
    assert_the_graph_tells_what_is_computed(
        difference_of([B, A]), lambda tensors: {name: tensors[name] for name in names}
    )


def test_the_outputs_of_a_dict_are_counted_by_their_keys():
    image, outer = keras.Input(SIZE), keras.Input(SIZE, name="outer")
    two = keras.Model(image, {name: layers.ReLU(name=f"{name}_relu")(image) for name in "ba"})
    assert [node.operation.name for node in FlatGraph(two).outputs] == ["a_relu", "b_relu"]
    for name in "ab":
        assert way(FlatGraph(keras.Model(outer, two(outer)[name])).outputs[0]) == [f"{name}_relu", "outer"]


def test_an_input_that_is_an_output():
    image = keras.Input(SIZE, name="image")
    nothing = keras.Model(image, image)
    outer = keras.Input(SIZE, name="outer")
    model = keras.Model(outer, layers.ReLU(name="relu")(keras.Sequential([keras.Input(SIZE), nothing])(outer)))
    assert way(FlatGraph(model).outputs[0]) == ["relu", "outer"]


def test_of_several_tensors_the_one_that_is_read_is_followed():
    image = keras.Input(SIZE, name="image")
    two = keras.Model(image, [layers.ReLU(name="first")(image), layers.ReLU(name="second")(image)])
    outer = keras.Input(SIZE, name="outer")
    first, second = two(outer)
    model = keras.Model(outer, layers.ReLU(name="last")(second) + 0 * first)
    add = FlatGraph(model).outputs[0]
    assert [way(source)[-2] for source in add.sources] == ["second", "first"]
    assert way(add) == [add.operation.name, "last", "second", "outer"]
