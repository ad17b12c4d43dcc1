"""What TensorFlow cannot compute on a processor without oneDNN, said in one line with what to do."""

# what TensorFlow's own kernels for processors say -> what they lack
LACKING = {
    "not yet support dilation rates larger than 1": "transposed convolutions with a dilation rate above 1",
    "only supports the NHWC tensor format": "convolutions that are channels first",
    "only supports NHWC": "convolutions that are channels first",
}


def why_not_computed(error: Exception) -> str:
    """The reason why TensorFlow refused to compute, if it is one that oneDNN removes; empty for other errors.

    Example:
        >>> why_not_computed(error)
        'TensorFlow computes no convolutions that are channels first on this processor without oneDNN; set ...'
    """
    said = str(error)
    lacking = next((what for phrase, what in LACKING.items() if phrase in said), None)
    if lacking is None:
        return ""
    return (
        f"TensorFlow computes no {lacking} on this processor without oneDNN; set the environment variable "
        "TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported, or import kzoo before it"
    )
