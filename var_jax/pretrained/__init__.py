"""Fixed networks that teach or judge, and the readers of their files."""
