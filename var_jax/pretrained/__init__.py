"""Pretrained networks that teach or judge, fixed in training, and the readers of their files."""
