"""Calls of models inside models: where each really gets its tensors from."""

import keras
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
