"""Where arrays live: meshes, and sharding as data. Knows the paths of parameters, not models."""
