"""What is told of a run: measurements, the model card, curves and sheets of pictures."""
