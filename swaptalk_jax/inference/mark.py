"""What a generated file says of itself."""

# What the file says of itself, in the container's metadata.
MARK = {
    "title": "AI-generated video",
    "comment": "AI-generated: face and lips were synthesised by SwapTalk in JAX",
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/"
    "compositeWithTrainedAlgorithmicMedia",
}
