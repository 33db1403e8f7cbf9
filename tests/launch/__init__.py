"""The launch scripts: what they would do, and that what they would do works."""
