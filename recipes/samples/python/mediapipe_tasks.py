"""Runs a LiteRT file of kzoo in MediaPipe Tasks, which reads labels and the rest from the metadata inside the file.

    pip install mediapipe
    python mediapipe_tasks.py model.tflite photo.jpg ...

Prints the five most probable classes of each picture, or writes NAME_mask.png, whose numbers are classes, here. The
file must take float32 or uint8: `kzoo export ... --precision int8 --io uint8`.

MediaPipe stretches a picture to the model's size, and its resizing does not antialias. Where the card says another
way, as "crop", bring the picture to that size yourself, as classify.py does: of a picture of the model's size
MediaPipe and kzoo say the same.
"""

import argparse
import json
import zipfile
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from PIL import Image


def task_of(model: Path) -> str:
    """What kzoo wrote into the file: "classification" or "segmentation"."""
    with zipfile.ZipFile(model) as archive:
        return json.loads(archive.read("kzoo_card.json"))["output"]["task"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs a LiteRT file in MediaPipe Tasks.")
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    arguments = parser.parse_args()
    base = BaseOptions(model_asset_path=str(arguments.model))
    if task_of(arguments.model) == "segmentation":
        options = vision.ImageSegmenterOptions(base_options=base, output_confidence_masks=True)
        runner = vision.ImageSegmenter.create_from_options(options)
    else:
        options = vision.ImageClassifierOptions(base_options=base, max_results=5)
        runner = vision.ImageClassifier.create_from_options(options)
    with runner:
        for path in arguments.pictures:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
            if isinstance(runner, vision.ImageClassifier):
                found = runner.classify(picture).classifications[0].categories
                told = ", ".join(f"{each.category_name or each.index} {each.score:.2%}" for each in found)
            else:
                maps = np.dstack([each.numpy_view() for each in runner.segment(picture).confidence_masks])
                # One map is that of the second of two classes. A category mask of one map marks it by 0, not by 1.
                mask = maps.argmax(axis=-1) if maps.shape[-1] > 1 else maps[..., 0] >= 0.5
                Image.fromarray(mask.astype("uint8")).save(f"{path.stem}_mask.png")
                told = ", ".join(runner.labels)
            print(f"{path}: {told}")


if __name__ == "__main__":
    main()
