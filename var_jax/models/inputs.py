"""What a transformer is told at each position, by name. A config chooses one, tokenizer and sampler supply it."""

CUMULATIVE = "cumulative"  # the sum of all coarser scales, shrunk to this one (VAR)
LAST_SCALE = "last_scale"  # what the scale before added to that sum, alone
PREVIOUS_TOKEN = "previous_token"  # the code of the token before, row by row: the raster-scan baseline, of one scale
INPUTS = (CUMULATIVE, LAST_SCALE, PREVIOUS_TOKEN)
