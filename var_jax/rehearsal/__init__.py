"""Programs as a pod would run them, compiled where there is none."""
