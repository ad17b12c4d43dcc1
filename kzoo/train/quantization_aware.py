"""Quantization-aware fine-tuning: what differs from a plain run at its start and at its end."""

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.last_operation import scores_of
from kzoo.models.detector import raw_outputs
from kzoo.models.inception import without_auxiliary
from kzoo.recipe import Recipe
from kzoo.surgery.fake_quantization import insert_fake_quantization, remove_fake_quantization
from kzoo.surgery.fold_batch_norm import fold_batch_norm

# scheme -> precision of the file whose rounding is trained, and whether its kernels have a scale for each channel;
# those with one scale for each kernel are for other devices: kzoo writes no such files
SCHEMES = {
    "int8": ("int8", True),
    "int8_per_tensor": ("int8", False),
    "int4": ("int4", True),
    "int4_per_tensor": ("int4", False),
    "int4_weights": ("int4_weights", True),
}


def check_recipe(recipe: Recipe) -> None:
    """Checks, before any work, what fine-tuning needs.

    Raises:
        InvalidValueError: an unknown scheme, no weights to start from, or half precision, whose own rounding is
            coarser than the grid.
    """
    if recipe.quantization_aware is None:
        return
    check_choice("quantization_aware", recipe.quantization_aware, SCHEMES)
    if recipe.weights is None:
        raise InvalidValueError(
            f"quantization_aware={recipe.quantization_aware!r} fine-tunes a trained model; pass its file as weights, "
            "such as --weights saved_models/runs/NAME/model.keras"
        )
    if recipe.precision != "float32":
        raise InvalidValueError(f"quantization_aware needs precision='float32', and it is {recipe.precision!r}")


def prepare(recipe: Recipe, model: keras.Model) -> keras.Model:
    """The model that the recipe trains: `model`, or a copy that is folded and rounds as the scheme says."""
    if recipe.quantization_aware is None:
        return model
    return insert_fake_quantization(fold_batch_norm(model), *SCHEMES[recipe.quantization_aware])


def take_weights(recipe: Recipe, model: keras.Model, trained: keras.Model) -> keras.Model:
    """`model` with the trained weights, without auxiliary heads; folded, with its kernels on their grid, where
    rounding was trained.

    Args:
        recipe: of the run.
        model: as it is finished, with class probabilities.
        trained: a checkpoint of the run.
    """
    if recipe.quantization_aware is not None:
        model, trained = fold_batch_norm(model), remove_fake_quantization(trained)
    learned = model if scores_of(model) is None else raw_outputs(model)  # on the same weights
    learned.set_weights(without_auxiliary(trained).get_weights())
    return model
