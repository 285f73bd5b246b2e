"""The rates of all records, declared once."""

FRAME_RATE = 25  # frames a second
SAMPLE_RATE = 16_000  # samples a second of mono sound, what every feature of sound takes
FEATURE_RATE = 50  # tokens of sound a second
TOKEN = SAMPLE_RATE // FEATURE_RATE  # samples a token
TOKENS = FEATURE_RATE // FRAME_RATE  # of sound in a frame
SAMPLES = SAMPLE_RATE // FRAME_RATE  # of sound in a frame
