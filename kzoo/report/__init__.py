"""What is told of a run: measurements of finished models, curves, and sheets of images.

score: a number of a finished model on a split.
measurement: scores, size and latency of one model, and its difference to the Keras model.
sheet: a PNG of several images, their truth and what a model made of them.
latency: time for one image, in milliseconds.
"""
