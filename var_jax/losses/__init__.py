"""What pictures are judged by while a tokenizer learns: perceptual and adversarial losses, and discriminators."""
