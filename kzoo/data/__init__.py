"""Data by name: loaders that give `ImageDataset`, augmentation, and batches in the order of (seed, epoch, step)."""

from kzoo.data.datasets import load_dataset
from kzoo.data.split import VOID, Example, File, ImageDataset, Split, readable_images

__all__ = ["VOID", "Example", "File", "ImageDataset", "Split", "load_dataset", "readable_images"]
